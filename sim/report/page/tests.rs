use std::time::Duration;

use grenache::event::Event as StackEvent;

use super::*;
use crate::backend::On;
use crate::event::{Event, Record};
use crate::report::{Outcome, Verdict};

/// What somebody might call a service, or send as a value.
const HOSTILE: &str = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&";

fn hostile() -> String {
    let text = format!(
        "description = '''{HOSTILE}'''\n[node.a]\n[[program]]\nnode = \"a\"\nrun = \"grape\"\ndht-port = 1\napi-port = 2\n"
    );
    let scenario = crate::scenario::parse("hostile", &text).expect("it is a scenario");
    let mut picture = Picture::new(&scenario);
    let name = HOSTILE.to_owned();
    let event = StackEvent::Announced { name, port: 1, nodes: 1 };
    picture.observe(&Record { at_ns: 1, at: Some("a".into()), event: Event::Stack(event) });
    let expectation = ExpectationOutcome {
        text: format!("a gets {HOSTILE}"),
        line: 3,
        met: false,
        reason: Some(HOSTILE.to_owned()),
        decided_at: Duration::from_secs(2),
        file: None,
        decided_by: HOSTILE.to_owned(),
    };
    let run = Run {
        file: format!("{HOSTILE}.toml").into(),
        name: "hostile".to_owned(),
        seed: 1,
        on: On::Sim,
        result: RunResult::Done(Outcome {
            verdict: Verdict::Failed,
            expectations: vec![expectation],
            simulated: Duration::from_secs(2),
            programs_failed: vec![HOSTILE.to_owned()],
        }),
        wall: Duration::from_millis(12),
        trail: vec![HOSTILE.to_owned()],
        replay: String::new(),
    };
    report(&run, &scenario, &picture, &format!("grenache run '{HOSTILE}'"))
}

#[test]
fn no_text_can_become_markup() {
    let page = hostile();
    // One script of ours, one block of data, and what belongs to neither.
    assert_eq!(page.matches("<script").count(), 2, "{page}");
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page.matches("<img").count(), 0);
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"), "what is read is shown as it was written");
    let (_, data) = page.split_once("type=\"application/json\">").expect("there is data");
    let (data, _) = data.split_once("</script>").expect("the data ends");
    let data: serde_json::Value = serde_json::from_str(data).expect("the data is JSON");
    assert!(data["marks"][0]["text"].as_str().expect("a text").contains("</script><script>"));
}

#[test]
fn the_page_has_nothing_from_elsewhere_and_says_so() {
    let page = hostile();
    let policy = page.split_once("content=\"default-src 'none'").expect("there is a policy").1;
    assert!(policy.split_once('"').expect("it ends").0.contains("script-src 'sha256-"));
    // The only address is the name of SVG's namespace.
    assert_eq!(page.matches("://").count(), page.matches("http://www.w3.org/2000/svg").count());
    for loads in ["@import", "url(", "<link", " src=\"", " href=", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(!page.contains("12 ms"), "the real time is not told");
}
