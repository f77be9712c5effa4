//! Firefox, controlled through its own WebDriver BiDi port (JSON over a WebSocket).

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::support::browser::{DESKTOP, PLAIN_HOST, WebBrowser};
use crate::support::child::{LONG_TIMEOUT, RunningChild};
use crate::support::wait::until;

/// The program of Debian's package.
pub(crate) const FIREFOX: &str = "firefox-esr";

/// A Firefox with one window; it terminates on drop.
pub(crate) struct Firefox {
    connection: Mutex<Connection>,
    /// The identifier of the tab.
    context: String,
    running: RunningChild,
    _profile: TempDir,
}

struct Connection {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    last_id: u64,
}

impl Firefox {
    pub(crate) fn open() -> Firefox {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        fs::write(profile.path().join("user.js"), preferences()).unwrap();
        let mut command = Command::new(FIREFOX);
        command
            .args(["--headless", "--no-remote", "--remote-debugging-port", "0"])
            .arg("--profile")
            .arg(profile.path())
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path());
        let mut running = RunningChild::start(&mut command, b"");
        let url = until("the port of Firefox", || {
            running.assert_running();
            let output = running.stderr_so_far();
            let (_, url) = output.split_once("listening on ")?;
            url.split_once('\n').map(|(url, _)| url.trim().to_owned())
        });
        let (socket, _) = tungstenite::connect(format!("{url}/session")).expect("a connection");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(LONG_TIMEOUT)).unwrap();
        }
        let mut connection = Connection { socket, last_id: 0 };
        connection
            .command("session.new", &json!({ "capabilities": {} }))
            .expect("a session");
        let context = until("the first tab", || {
            let tree = connection.command("browsingContext.getTree", &json!({}));
            let tree = tree.expect("the tabs");
            tree["contexts"][0]["context"].as_str().map(str::to_owned)
        });
        Firefox {
            connection: Mutex::new(connection),
            context,
            running,
            _profile: profile,
        }
    }

    /// Sends a command for the tab.
    fn command(&self, method: &str, mut parameters: Value) -> Result<Value, Value> {
        parameters["context"] = json!(self.context);
        let connection = self.connection.lock();
        let mut connection = connection.unwrap_or_else(PoisonError::into_inner);
        connection.command(method, &parameters)
    }

    fn traverse_history(&self, delta: i32) {
        let parameters = json!({ "delta": delta });
        self.command("browsingContext.traverseHistory", parameters)
            .expect("a page in the history");
    }
}

impl WebBrowser for Firefox {
    fn navigate(&self, url: &str) {
        let parameters = json!({ "url": url, "wait": "none" });
        self.command("browsingContext.navigate", parameters)
            .expect(url);
    }

    fn back(&self) {
        self.traverse_history(-1);
    }

    fn forward(&self) {
        self.traverse_history(1);
    }

    fn reload(&self) {
        self.command("browsingContext.reload", json!({ "wait": "none" }))
            .expect("a reload");
    }

    /// The result is null while the page is replaced by another.
    fn run_script(&self, script: &str) -> Value {
        let parameters = json!({
            "expression": format!("JSON.stringify((() => {{ {script} }})() ?? null)"),
            "target": { "context": self.context },
            "awaitPromise": false,
        });
        let response = self.command("script.evaluate", parameters);
        let text = response.unwrap_or_default()["result"]["value"].take();
        let text = text.as_str().unwrap_or("null");
        serde_json::from_str(text).expect("a result in JSON")
    }

    /// Without a screen, the window of Firefox has no focus, and keys do not reach its buttons.
    /// So this is a click with the flag of the user's activation.
    fn screenshot(&self) -> String {
        let viewport = json!({ "width": DESKTOP.width, "height": DESKTOP.height });
        let parameters = json!({ "context": self.context, "viewport": viewport });
        self.command("browsingContext.setViewport", parameters)
            .expect("a viewport");
        let parameters = json!({ "context": self.context });
        let picture = self.command("browsingContext.captureScreenshot", parameters);
        let picture = picture.expect("a picture");
        picture["data"].as_str().expect("a picture").to_owned()
    }

    fn press_focused(&self) {
        let parameters = json!({
            "expression": "document.activeElement.click()",
            "target": { "context": self.context },
            "awaitPromise": false,
            "userActivation": true,
        });
        self.command("script.evaluate", parameters)
            .expect("a click");
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        self.running.stop();
    }
}

impl Connection {
    /// Sends a command and waits for its answer. Events are ignored.
    fn command(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({ "id": id, "method": method, "params": parameters });
        let message = Message::text(command.to_string());
        self.socket.send(message).expect("a write to Firefox");
        loop {
            let message = self.socket.read().expect("an answer of Firefox");
            let Message::Text(text) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).expect("an answer in JSON");
            if answer["id"] == json!(id) {
                return match answer["type"] == "success" {
                    true => Ok(answer["result"].take()),
                    false => Err(answer),
                };
            }
        }
    }
}

/// The preferences: the host name for tests, no proxy of the user, and no connections to the
/// browser's vendor.
fn preferences() -> String {
    let mut text = format!("user_pref(\"network.dns.localDomains\", \"{PLAIN_HOST}\");\n");
    for (name, value) in [
        ("network.proxy.type", "0"),
        ("app.update.enabled", "false"),
        ("app.normandy.enabled", "false"),
        ("browser.safebrowsing.downloads.enabled", "false"),
        ("datareporting.policy.dataSubmissionEnabled", "false"),
        ("extensions.getAddons.cache.enabled", "false"),
        ("network.captive-portal-service.enabled", "false"),
        ("network.connectivity-service.enabled", "false"),
        ("services.settings.server", "\"data:,\""),
    ] {
        text.push_str(&format!("user_pref(\"{name}\", {value});\n"));
    }
    text
}
