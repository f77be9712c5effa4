//! Events as text: the screen message, and the line for a session that has ended.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::QuotedName;
use crate::events::{ClientRequest, Drops, RequestAnswered, SessionClosed};

/// The screen message: six lines and an empty one.
pub(super) fn screen_message(answered: &RequestAnswered) -> String {
    let RequestAnswered {
        client,
        destination,
        port,
        command,
        cause,
        ..
    } = answered;
    let destination = match destination {
        Some(address) => address.to_canonical().to_string(),
        None => "-".to_owned(),
    };
    let (source, source_port) = (client.ip().to_canonical(), client.port());
    let reply = if cause.is_none() { "Accept" } else { "Reject" };
    format!(
        "<S_IP>: {source}\n\
         <S_PORT>: {source_port}\n\
         <D_IP>: {destination}\n\
         <D_PORT>: {port}\n\
         <Command>: {command}\n\
         <Reply>: {reply}\n\
         \n"
    )
}

/// "1 session", "2 sessions".
pub(super) fn counted(count: impl Into<u64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// The line for a session that has ended: `key=value` pairs in a fixed order, for programs
/// that read it.
pub(super) struct SessionLine<'a> {
    pub(super) time: SystemTime,
    pub(super) closed: &'a SessionClosed,
}

impl fmt::Display for SessionLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionClosed {
            session,
            client,
            via: _,
            request,
            address,
            confirmed,
            rule,
            up,
            down,
            drops,
            lasted,
            reason,
        } = self.closed;
        let time = humantime::format_rfc3339_seconds(printable(self.time));
        write!(out, "{time} s{session} client={client}")?;
        if let Some(request) = request {
            let ClientRequest {
                encoder,
                command,
                destination,
                ..
            } = request;
            write!(
                out,
                " language={encoder} command={command} target={destination}"
            )?;
            if let Some(address) = address {
                write!(out, " address={address}")?;
            }
            if !request.user.is_empty() {
                write!(out, " user={}", QuotedName(&request.user))?;
            }
            if request.logged_in {
                out.write_str(" login=accepted")?;
            }
            if *confirmed {
                out.write_str(" ident=confirmed")?;
            }
        }
        match rule {
            Some(line) => write!(out, " rule={line}")?,
            None => out.write_str(" rule=-")?,
        }
        let lasted = humantime::format_duration(Duration::from_millis(
            u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        ));
        write!(out, " up={up} down={down}")?;
        if let Some(Drops { denied, other }) = drops {
            write!(out, " denied={denied} dropped={other}")?;
        }
        write!(out, " lasted=\"{lasted}\" ending=\"")?;
        Quoted(out).write_fmt(format_args!("{reason}"))?;
        out.write_char('"')
    }
}

/// The time, or the nearest one that humantime can print without panicking: the clock of a
/// machine may be wrong by centuries.
pub(super) fn printable(time: SystemTime) -> SystemTime {
    /// The last second of the year 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + since.min(LAST)
}

/// Writes text between quotes: a double quote in it becomes a single one.
struct Quoted<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Quoted<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '"' => self.0.write_str("'")?,
                char => self.0.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_printed() {
        let second = Duration::from_secs(1);
        for (time, printed) in [
            (UNIX_EPOCH - second, "1970-01-01T00:00:00Z"),
            (UNIX_EPOCH + second, "1970-01-01T00:00:01Z"),
            (UNIX_EPOCH + second * u32::MAX * 100, "9999-12-31T23:59:59Z"),
        ] {
            let shown = humantime::format_rfc3339_seconds(printable(time));
            assert_eq!(shown.to_string(), printed);
        }
    }
}
