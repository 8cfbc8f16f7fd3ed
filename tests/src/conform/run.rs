//! Runs cases against a back-end, each with a deadline, and goes on after each.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::case::{Case, Group, Stop};
use super::cases;
use super::probe::Probe;
use super::sentences::{self, Level, Side};
use super::target::{Kind, Target};
use super::trial::{Connections, Trial};
use crate::frontend::VhostUser;

/// How long a case that was interrupted may still take to notice.
const GRACE: Duration = Duration::from_secs(2);

/// What the reason of a case begins with whose back-end was gone before.
const NOT_RUN: &str = "not run: ";

/// What came out of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held.
    Pass,
    /// Something did not; what.
    Fail(String),
    /// It was not run; why.
    Skip(String),
}

impl Verdict {
    /// `PASS`, `FAIL` or `SKIP`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail(_) => "FAIL",
            Self::Skip(_) => "SKIP",
        }
    }

    /// What went wrong or was missing; empty for a pass.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::Fail(reason) | Self::Skip(reason) => reason,
        }
    }
}

/// One case on one back-end.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The case.
    pub case: Case,
    /// What came out.
    pub verdict: Verdict,
    /// How long it took, the start of the back-end included.
    pub took: Duration,
}

/// All cases on one back-end.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which back-end.
    pub target: Target,
    /// What it offers.
    pub probe: Probe,
    /// What came out, in the order of the cases.
    pub findings: Vec<Finding>,
}

impl Run {
    /// Why no case at all could be run; `None` if one was.
    #[must_use]
    pub fn unasked(&self) -> Option<&str> {
        let mut reasons = self.findings.iter().map(|one| one.verdict.reason());
        let first = reasons.next().filter(|why| why.starts_with(NOT_RUN))?;
        reasons.all(|why| why.starts_with(NOT_RUN)).then_some(first)
    }

    /// How many passed, failed and were skipped.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let count = |word| {
            let with_word = |finding: &&Finding| finding.verdict.word() == word;
            self.findings.iter().filter(with_word).count()
        };
        [count("PASS"), count("FAIL"), count("SKIP")]
    }
}

/// Why a back-end could not be tested at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is none: it does not start, or nobody listens.
    Absent(String),
    /// There is something, but no vhost-user back-end.
    Stranger(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(why) => f.write_str(why),
            Self::Stranger(why) => write!(f, "not a vhost-user back-end: {why}"),
        }
    }
}

/// Asks a back-end what it offers.
///
/// # Errors
/// [`Trouble`]: it cannot be tested.
pub fn probe(target: &Target, patience: Duration) -> Result<Probe, Trouble> {
    let mut running = target.start(patience).map_err(Trouble::Absent)?;
    let socket = running.socket().to_owned();
    let ask = move |connections: &Connections| {
        let stream = connections.open(&socket).map_err(|error| {
            Trouble::Absent(format!("nobody serves {}: {error}", socket.display()))
        })?;
        Probe::of(VhostUser::over(stream)).map_err(|error| Trouble::Stranger(error.to_string()))
    };
    match within(2 * patience, ask, || running.kill()) {
        Ok(Err(trouble)) => match running.death(false) {
            Some(death) => Err(Trouble::Stranger(format!("{trouble}; {death}"))),
            None => Err(trouble),
        },
        Ok(found) => found,
        Err(broken) => Err(Trouble::Stranger(broken)),
    }
}

/// Runs these cases against a back-end that offers what `probe` says; tells each finding to `each`.
pub fn run(
    target: &Target,
    mut probe: Probe,
    cases: &[Case],
    patience: Duration,
    each: &mut dyn FnMut(&Finding),
) -> Run {
    let mut findings = Vec::with_capacity(cases.len());
    if cases.iter().any(|case| case.needs.pictures) {
        probe.pictures = shows_pictures(target, &probe, patience);
    }
    // It may have ended with the connection that probed it.
    let mut gone = lost(target, patience);
    for case in cases {
        let began = Instant::now();
        let verdict = match (&gone, case.needs.missing(&probe)) {
            (Some(why), _) => Verdict::Skip(format!("{NOT_RUN}{why}")),
            (None, Some(lack)) => Verdict::Skip(lack),
            (None, None) => match one(target, &probe, case, patience) {
                Verdict::Fail(why) => Verdict::Fail(binding(case) + &why),
                other => other,
            },
        };
        if gone.is_none() && matches!(verdict, Verdict::Fail(_)) {
            gone = lost(target, patience);
        }
        let took = began.elapsed();
        findings.push(Finding {
            case: *case,
            verdict,
            took,
        });
        each(&findings[findings.len() - 1]);
    }
    Run {
        target: target.clone(),
        probe,
        findings,
    }
}

/// Whether a picture reaches the display, which the first case of its group finds out.
fn shows_pictures(target: &Target, probe: &Probe, patience: Duration) -> bool {
    let all = cases::all();
    let first = all.iter().find(|case| case.group == Group::TwoD);
    first.is_some_and(|case| one(target, probe, case, patience) == Verdict::Pass)
}

/// What the reason of a failure begins with: how much the case's sentences bind the device, unless
/// each is a MUST.
fn binding(case: &Case) -> String {
    let levels: Vec<_> = sentences::all()
        .into_iter()
        .filter(|one| one.side == Side::Device && case.sentences.contains(&&*one.id))
        .map(|one| one.level)
        .collect();
    let order = [Level::Must, Level::Should, Level::States, Level::May];
    let found = order.into_iter().filter(|level| levels.contains(level));
    match found.collect::<Vec<_>>().as_slice() {
        [] => "(no sentence) ".to_owned(),
        [Level::Must] => String::new(),
        levels => {
            let words = levels.iter().map(|level| level.word());
            format!("({}) ", words.collect::<Vec<_>>().join(" or "))
        }
    }
}

/// Whether somebody else's back-end is gone after a failure: it cannot be started again here.
fn lost(target: &Target, patience: Duration) -> Option<String> {
    match target.kind {
        Kind::Spawn(_) | Kind::Known(_) => None,
        Kind::Socket(_) => {
            let trouble = probe(target, patience).err()?;
            Some(format!(
                "{trouble}; a back-end that ends with its front-end is to be started by --spawn"
            ))
        }
    }
}

fn one(target: &Target, probe: &Probe, case: &Case, patience: Duration) -> Verdict {
    let mut running = match target.start(patience) {
        Ok(running) => running,
        Err(why) => return Verdict::Fail(why),
    };
    let (socket, probe, body) = (running.socket().to_owned(), probe.clone(), case.run);
    let limit = 2 * patience;
    let outcome = within(
        limit,
        move |connections| body(&mut Trial::of(&socket, &probe, connections.clone())),
        || running.kill(),
    );
    let verdict = match outcome {
        Ok(Ok(())) => Verdict::Pass,
        Ok(Err(Stop::Fail(what))) => Verdict::Fail(what),
        Ok(Err(Stop::Skip(why))) => Verdict::Skip(why),
        Err(broken) => Verdict::Fail(broken),
    };
    let content = !matches!(verdict, Verdict::Fail(_));
    match (running.death(content), verdict) {
        (None, verdict) => verdict,
        (Some(death), Verdict::Fail(what)) => Verdict::Fail(format!("{what}; {death}")),
        (Some(death), _) => Verdict::Fail(death),
    }
}

/// Runs `body` on a thread of its own for at most `limit`. When that has passed, `interrupt` and the
/// end of all connections are to stop it; a thread that hangs even then is left behind.
fn within<T: Send + 'static>(
    limit: Duration,
    body: impl FnOnce(&Connections) -> T + Send + 'static,
    interrupt: impl FnOnce() -> bool,
) -> Result<T, String> {
    let connections = Connections::default();
    let (sender, receiver) = mpsc::channel();
    let on_thread = connections.clone();
    let spawned = std::thread::Builder::new().spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| body(&on_thread)));
        // Nobody listens any more to a thread that was left behind.
        let _ = sender.send(result.map_err(|panic| panic_text(&*panic)));
    });
    spawned.map_err(|error| format!("no thread for the case: {error}"))?;
    let result = receiver.recv_timeout(limit).or_else(|_| {
        interrupt();
        connections.shut();
        receiver.recv_timeout(GRACE).map(|_| Err(String::new()))
    });
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) if !panic.is_empty() => Err(format!("the case itself broke: {panic}")),
        _ => Err(format!("not finished after {limit:?}")),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_hangs_ends_at_the_limit_and_its_connections_with_it() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let began = Instant::now();
        let result = within(
            Duration::from_millis(100),
            move |connections| {
                connections.add(&ours);
                std::io::Read::read(&mut &ours, &mut [0])
            },
            || false,
        );
        assert!(result.unwrap_err().contains("not finished"));
        assert!(began.elapsed() < GRACE);
        drop(theirs);
    }

    #[test]
    fn a_failure_says_how_much_its_sentences_bind() {
        let with = |sentences| Case {
            sentences,
            ..cases::all()[0]
        };
        // Of fences: a MUST, a MAY of the driver, and what the text states.
        assert_eq!(binding(&with(&["gpu-fence-4"])), "");
        let both = &["gpu-fence-7", "gpu-fence-4"];
        assert_eq!(binding(&with(both)), "(MUST or STATES) ");
        assert_eq!(binding(&with(&["gpu-fence-7"])), "(STATES) ");
        assert_eq!(binding(&with(&["ring-20"])), "(MAY) ");
        assert_eq!(binding(&with(&["gpu-fence-6"])), "(no sentence) ");
        assert_eq!(binding(&with(&[])), "(no sentence) ");
    }

    #[test]
    fn a_body_that_panics_is_told_with_its_words() {
        let result = within(Duration::from_secs(5), |_| panic!("bad sums"), || false);
        assert_eq!(result, Err("the case itself broke: bad sums".to_owned()));
    }
}
