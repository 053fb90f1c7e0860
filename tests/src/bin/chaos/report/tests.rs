use super::*;
use crate::{
    check::{Finding, Shown},
    nemesis::LeaderDeath,
};

const MS: u64 = 1_000_000;

fn shown(client: u32, called: u64, op: &str, answered: Option<(u64, &str)>) -> Shown {
    let answered = answered.map(|(at, answer)| (at * MS, answer.to_owned()));
    Shown { client, called: called * MS, op: op.to_owned(), answered }
}

fn finding() -> Finding {
    Finding {
        agent: "counter-0-7".to_owned(),
        is_violation: true,
        state: "3".to_owned(),
        left_out: 12,
        operations: vec![
            shown(1, 5_000, "Add(1)", Some((5_010, "4"))),
            shown(2, 5_005, "Write(\"<b>\")", None),
            shown(2, 5_020, "Get", Some((5_025, "3"))),
        ],
    }
}

fn report(findings: Vec<Finding>) -> Report {
    let died = Event {
        kind: Kind::KillLeader,
        what: "node-1 killed".to_owned(),
        began: 5_000 * MS,
        ended: 9_000 * MS,
        death: Some(LeaderDeath { at: 5_000 * MS, regions: vec![1, 2] }),
    };
    let answers =
        |called: u64, answered: u64| vec![Answered { called: called * MS, answered: answered * MS }];
    Report {
        seed: 7,
        events: vec![died],
        answers: [(1, answers(5_001, 6_500)), (2, answers(5_001, 7_000))].into(),
        left_out: [(Kind::Delay, "no netem".to_owned())].into(),
        checked: vec![Checked { name: "counter", agents: 8, operations: 90, unknown: 2, findings }],
        ..Report::default()
    }
}

#[test]
fn a_run_without_violation_says_what_was_done_and_how_long_regions_were_gone() {
    let report = report(Vec::new());
    let text = report.to_string();
    assert!(report.is_clean() && text.ends_with("no violation\n"), "{text}");
    for part in [
        "faults: 1: kill-leader 1",
        "kill-leader: node-1 killed",
        "left out: delay: no netem",
        "counter: 8 agents, 90 operations, 2 unknown: all linearizable",
        "2 regions: median 2.00 s, worst 2.00 s (1.50 2.00)",
        "region 1 1.50 s, region 2 2.00 s",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn whatever_is_wrong_makes_a_violation() {
    let mut told = report(Vec::new());
    told.wrong.push("node-1 has ended by itself".to_owned());
    assert!(!told.is_clean() && told.to_string().ends_with("VIOLATION\n"));
    let undecided = Finding { is_violation: false, ..finding() };
    assert!(!report(vec![undecided]).is_clean());
}

#[test]
fn a_violation_is_shown_with_its_timeline_and_the_faults_of_its_time() {
    let text = report(vec![finding()]).to_string();
    for part in [
        "counter-0-7: no order fits these answers",
        "it held 3 after 12 operations",
        "[-----",
        "client 1 5.0000 Add(1) -> 4 at 5.0100",
        "Get -> 3 at 5.0250",
        "meanwhile 5.00 to 9.00: node-1 killed",
        "1 NOT LINEARIZABLE",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn pages_are_written_for_violations_only_and_replace_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let pages = report(vec![finding()]).write_pages(folder.path()).unwrap();
    assert_eq!(pages, [folder.path().join("violation-counter-0-7.html")]);
    let page = std::fs::read_to_string(&pages[0]).unwrap();
    for part in
        ["<svg", "Get -&gt; 3", "Write(&quot;&lt;b&gt;&quot;)", "class=fault", "node-1 killed", "</svg>"]
    {
        assert!(page.contains(part), "'{part}' is not in: {page}");
    }
    assert!(report(Vec::new()).write_pages(folder.path()).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
