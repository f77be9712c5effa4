//! Chromium, controlled by chromedriver with the WebDriver protocol (JSON over HTTP).

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::endpoints::free_ports;
use crate::support::wait::until;

/// The Tab key in the WebDriver protocol.
pub(crate) const TAB: &str = "\u{E004}";

/// The Enter key in the WebDriver protocol.
pub(crate) const ENTER: &str = "\u{E007}";

/// A host name for 127.0.0.1. Pages at this name are not on loopback for a browser, so it treats
/// them like pages of any server over plain http.
pub(crate) const PLAIN_HOST: &str = "plain.test";

/// A browser with one window; it terminates on drop.
pub(crate) struct Browser {
    agent: Agent,
    session: String,
    driver: RunningChild,
    _home: TempDir,
}

/// A browser of any kind. No method waits for a page to load.
pub(crate) trait WebBrowser {
    /// Starts loading a page, as if the user had typed its address.
    fn navigate(&self, url: &str);

    /// Goes back one page in the history.
    fn back(&self);

    /// Goes forward one page in the history.
    fn forward(&self);

    /// Reloads the page.
    fn reload(&self);

    /// Runs this script in the page and returns its result.
    fn run_script(&self, script: &str) -> Value;

    /// Presses the focused button or link, as the user does.
    fn press_focused(&self);

    /// The visible part of the page, as a PNG in base64.
    fn screenshot(&self) -> String;
}

/// The screen of an emulated device; width and height are in CSS pixels.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) mobile: bool,
}

pub(crate) const DESKTOP: Screen = Screen {
    width: 1440,
    height: 900,
    mobile: false,
};

pub(crate) const PHONE: Screen = Screen {
    width: 390,
    height: 844,
    mobile: true,
};

impl Browser {
    /// Starts a browser with default preferences.
    pub(crate) fn open() -> Browser {
        Browser::with_preferences(&json!({}))
    }

    /// Starts a browser with JavaScript switched off. The scripts of [`Browser::run_script`]
    /// run nevertheless, because they belong to the driver and not to the page.
    pub(crate) fn without_javascript() -> Browser {
        let never = 2;
        let browser = Browser::with_preferences(&json!({
            "profile.managed_default_content_settings.javascript": never
        }));
        browser
            .navigate("data:text/html,<title>off</title><p><script>document.title = 'on'</script>");
        until("a page without JavaScript", || {
            let title = browser.run_script("return document.querySelector('p') && document.title");
            (!title.is_null()).then(|| assert_eq!(title, "off"))
        });
        browser
    }

    fn with_preferences(preferences: &Value) -> Browser {
        let home = tempfile::tempdir().expect("a folder for the browser");
        // chromedriver binds the port for IPv4 and for IPv6. A port that it chooses itself may be
        // free for only one of them, and then it fails.
        let port = free_ports(1);
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={port}"))
            .env("HOME", home.path())
            // Temporary files that chromedriver leaves are removed with the folder.
            .env("TMPDIR", home.path());
        let mut driver = RunningChild::start(&mut command, b"");
        until("chromedriver", || {
            driver.assert_running();
            let output = driver.stdout_so_far();
            output.contains("started successfully").then_some(())
        });
        let agent = Agent::config_builder()
            // The user's proxy settings do not apply to the driver.
            .proxy(None)
            // The body of an error response contains the message.
            .http_status_as_error(false)
            .timeout_global(Some(LONG_TIMEOUT))
            .build()
            .into();
        let mut browser = Browser {
            agent,
            session: format!("http://127.0.0.1:{port}/session"),
            driver,
            _home: home,
        };
        let session = browser.post("", &capabilities(preferences));
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser.set_screen(DESKTOP);
        browser
    }

    /// Presses and releases these keys, one after the other.
    pub(crate) fn press_keys(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|event| json!({ "type": event, "value": key }))
        });
        let keyboard = json!({
            "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>()
        });
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// The messages in the browser's console since the last call.
    pub(crate) fn console_errors(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a list").iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// Emulates this screen from now on.
    pub(crate) fn set_screen(&self, screen: Screen) {
        let Screen {
            width,
            height,
            mobile,
        } = screen;
        self.devtools_command(
            "Emulation.setDeviceMetricsOverride",
            &json!({
                "width": width,
                "height": height,
                "mobile": mobile,
                "deviceScaleFactor": if mobile { 2 } else { 1 },
            }),
        );
    }

    /// Emulates the user's preferred colour scheme, `light` or `dark`, from now on.
    pub(crate) fn set_color_scheme(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools_command(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        );
    }

    /// Emulates this medium, for example `print`, from now on.
    pub(crate) fn set_media(&self, media: &str) {
        self.devtools_command("Emulation.setEmulatedMedia", &json!({ "media": media }));
    }

    /// Sends a command of the Chrome DevTools Protocol.
    fn devtools_command(&self, command: &str, parameters: &Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", &body);
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, Some(body))
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let response = self.try_request(method, path, body);
        response.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    /// The value of the response, or the whole body of an error response.
    fn try_request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let url = format!("{}{path}", self.session);
        let response = match body {
            Some(body) => self.agent.post(&url).send(body.to_string()),
            None => self.agent.get(&url).call(),
        };
        let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let body = response.body_mut().read_to_string().expect("a body");
        let body: Value = serde_json::from_str(&body).expect("a body in JSON");
        match response.status().is_success() {
            true => Ok(body["value"].clone()),
            false => Err(body),
        }
    }
}

impl WebBrowser for Browser {
    fn navigate(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    fn back(&self) {
        self.post("/back", &json!({}));
    }

    fn forward(&self) {
        self.post("/forward", &json!({}));
    }

    fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    fn run_script(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        // While the document is still empty, the driver's own script fails with this message.
        let is_too_early = |error: &Value| error.to_string().contains("(reading 'nodeType')");
        until("a document that can run scripts", || {
            match self.try_request("POST", "/execute/sync", Some(&body)) {
                Ok(response) => Some(response),
                Err(error) if is_too_early(&error) => None,
                Err(error) => panic!("{script}: {error:#}"),
            }
        })
    }

    fn press_focused(&self) {
        self.press_keys(ENTER);
    }

    fn screenshot(&self) -> String {
        let picture = self.request("GET", "/screenshot", None);
        picture.as_str().expect("a picture").to_owned()
    }
}

impl Drop for Browser {
    /// Deletes the session first: the driver alone does not terminate the browser.
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        self.driver.stop();
    }
}

/// The capabilities of a new session. With the strategy "none" the driver does not wait for a
/// page to load, since the tests inspect pages that are still loading.
fn capabilities(preferences: &Value) -> Value {
    json!({ "capabilities": { "alwaysMatch": {
        "pageLoadStrategy": "none",
        "goog:loggingPrefs": { "browser": "ALL" },
        "goog:chromeOptions": {
            "prefs": preferences,
            "args": [
                "--headless",
                "--disable-gpu",
                // Chromium's sandbox does not work for root. All pages are the test's own.
                "--no-sandbox",
                "--no-proxy-server",
                // Prevents connections to the browser's vendor.
                &format!(
                    "--host-resolver-rules=MAP {PLAIN_HOST} 127.0.0.1, MAP * ~NOTFOUND, \
                     EXCLUDE 127.0.0.1"
                ),
                "--disable-background-networking",
                "--disable-sync",
                "--disable-component-update",
                "--no-first-run",
                "--disable-breakpad",
            ],
        },
    } } })
}
