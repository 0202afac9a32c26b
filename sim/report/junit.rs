//! The results of many runs as JUnit's XML, which CI services read.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Run, RunResult};

/// What `--junit FILE` writes: a test suite a file, and in it a test case a run, with the real time that it took. A run
/// that did not pass is a failure, and one that could not run an error; both tell the story that the terminal shows.
pub fn junit(runs: &[Run], wall: Duration) -> String {
    let mut report = Report::new("grenache run");
    report.set_time(wall);
    for of_file in runs.chunk_by(|a, b| a.file == b.file) {
        let Some(first) = of_file.first() else { continue };
        let mut suite = TestSuite::new(first.name.as_str());
        suite.set_time(of_file.iter().map(|run| run.wall).sum());
        suite.add_test_cases(of_file.iter().map(case));
        report.add_test_suite(suite);
    }
    report.to_string().expect("text is all that it is made of")
}

fn case(run: &Run) -> TestCase {
    let status = if run.passed() {
        TestCaseStatus::success()
    } else {
        let kind = match run.result {
            RunResult::Refused(_) => NonSuccessKind::Error,
            _ => NonSuccessKind::Failure,
        };
        let mut status = TestCaseStatus::non_success(kind);
        let story = run.story();
        status.set_type(run.verdict()).set_message(message(run, &story)).set_description(story.join("\n"));
        status
    };
    let mut case = TestCase::new(format!("{} seed {}", run.name, run.seed), status);
    case.set_classname(run.file.display().to_string()).set_time(run.wall);
    case
}

/// The first thing that is wrong, in a line.
fn message(run: &Run, story: &[String]) -> String {
    let missed = match &run.result {
        RunResult::Done(outcome) => outcome.expectations.iter().find(|expectation| !expectation.met),
        _ => None,
    };
    match missed {
        Some(missed) => format!("not met: {}", missed.text),
        None => story.first().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::On;
    use crate::report::{ExpectationOutcome, Outcome, Verdict};

    fn run(file: &str, seed: u64, result: RunResult) -> Run {
        Run {
            file: file.into(),
            name: file.trim_end_matches(".toml").to_owned(),
            seed,
            on: On::Sim,
            result,
            wall: Duration::from_millis(12),
            trail: vec!["0.100 s  phone  request-failed".to_owned()],
            replay: format!("grenache run --seed {seed} {file}"),
        }
    }

    fn done(met: bool) -> RunResult {
        let expectation = ExpectationOutcome {
            text: "phone gets \"<b>&\", within 5s".to_owned(),
            line: 3,
            met,
            reason: (!met).then(|| "not within 5s; a reply was \"\u{1b}[2J]]>\"".to_owned()),
            decided_at: Duration::from_secs(5),
            file: None,
            decided_by: String::new(),
        };
        let verdict = if met { Verdict::Passed } else { Verdict::Failed };
        let simulated = Duration::from_secs(5);
        RunResult::Done(Outcome { verdict, expectations: vec![expectation], simulated, programs_failed: Vec::new() })
    }

    #[test]
    fn a_file_is_a_suite_and_a_run_a_case() {
        let refused = RunResult::Refused("\"b\" needs NATs".to_owned());
        let runs = [run("a.toml", 1, done(true)), run("a.toml", 2, done(false)), run("b.toml", 1, refused)];
        insta::assert_snapshot!(junit(&runs, Duration::from_millis(30)), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="grenache run" tests="3" skipped="0" failures="1" errors="1" time="0.030">
            <testsuite name="a" tests="2" skipped="0" errors="0" failures="1" time="0.024">
                <testcase name="a seed 1" classname="a.toml" time="0.012"/>
                <testcase name="a seed 2" classname="a.toml" time="0.012">
                    <failure message="not met: phone gets &quot;&lt;b&gt;&amp;&quot;, within 5s" type="failed">NOT MET: phone gets &quot;&lt;b&gt;&amp;&quot;, within 5s (a.toml:3)
          decided at 5.000 s: not within 5s; a reply was &quot;]]&gt;&quot;
        the last events:
          0.100 s  phone  request-failed
        run it again:  grenache run --seed 2 a.toml</failure>
                </testcase>
            </testsuite>
            <testsuite name="b" tests="1" skipped="0" errors="1" failures="0" time="0.012">
                <testcase name="b seed 1" classname="b.toml" time="0.012">
                    <error message="&quot;b&quot; needs NATs" type="refused">&quot;b&quot; needs NATs</error>
                </testcase>
            </testsuite>
        </testsuites>
        "#);
    }
}
