//! QEMU's monitor protocol: JSON lines over a socket (docs/interop/qmp-spec.rst).

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lines::{Lines, Next};
use super::{LabError, Result};

/// How long QEMU may take to answer; a busy emulated machine delays it.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A monitor connection, ready for commands.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    lines: Lines,
}

impl Qmp {
    /// Takes over a fresh connection: awaits the greeting and leaves negotiation mode.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let reader = stream
            .try_clone()
            .map_err(LabError::context("monitor connection"))?;
        let mut qmp = Self {
            stream,
            lines: Lines::read(reader),
        };
        qmp.receive("the greeting", |message| message.get("QMP").cloned())?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command of the human monitor and returns the text that it prints.
    pub(super) fn human(&mut self, line: &str) -> Result<String> {
        let arguments = json!({ "command-line": line });
        let answer = self.command("human-monitor-command", &arguments)?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Runs one command and returns what it answers.
    pub(super) fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .map_err(LabError::context(format_args!(
                "QEMU does not take the command {name}"
            )))?;
        // Events may come before the answer; they are of no interest here.
        let answer = self.receive(name, |message| {
            (message.get("return").is_some() || message.get("error").is_some())
                .then(|| message.clone())
        })?;
        if let Some(error) = answer.get("error") {
            let text = error
                .get("desc")
                .and_then(Value::as_str)
                .unwrap_or("no reason given");
            return Err(LabError::failed(format!("QEMU refuses {name}: {text}")));
        }
        Ok(answer.get("return").cloned().unwrap_or_default())
    }

    fn receive<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            let left = ANSWER_LIMIT.saturating_sub(start.elapsed());
            match self.lines.next(left) {
                Next::Line(line) => {
                    let message = serde_json::from_str::<Value>(&line)
                        .map_err(LabError::context("QEMU's monitor sends no JSON"))?;
                    if let Some(found) = pick(&message) {
                        return Ok(found);
                    }
                }
                Next::Nothing => {
                    return Err(LabError::failed(format!(
                        "QEMU's monitor has not answered for {} s ({what})",
                        ANSWER_LIMIT.as_secs()
                    )));
                }
                Next::Closed => {
                    return Err(LabError::failed(format!(
                        "QEMU has closed its monitor ({what})"
                    )));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    #[test]
    fn answers_and_errors_come_through_between_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            let mut writer = theirs;
            writer.write_all(b"{\"QMP\": {}}\n").unwrap();
            for answer in [
                "{\"return\": {}}\n",
                "{\"event\": \"X\"}\n{\"return\": 7}\n",
                "{\"error\": {\"desc\": \"no such thing\"}}\n",
            ] {
                reader.read_line(&mut String::new()).unwrap();
                writer.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut qmp = Qmp::new(ours).unwrap();
        assert_eq!(qmp.command("seven", &json!({})).unwrap(), json!(7));
        let error = qmp.command("thing", &json!({})).unwrap_err().to_string();
        assert_eq!(error, "QEMU refuses thing: no such thing");
        server.join().unwrap();
    }
}
