use super::*;
use std::time::{Duration, Instant};

fn every(period_ms: u64) -> When {
    When { timing: Timing::Every { period_ms }, start_ms: None, until_ms: None }
}

fn cron(text: &str, zone: &str) -> When {
    let timing = Timing::Cron { text: text.to_owned(), zone: zone.to_owned() };
    When { timing, start_ms: None, until_ms: None }
}

fn times(when: &When) -> DueTimes {
    DueTimes::new(when).unwrap()
}

/// A time such as `2026-03-29T01:59:59Z`.
fn ms(text: &str) -> u64 {
    text.parse::<Timestamp>().unwrap().as_millisecond() as u64
}

fn text(ms: u64) -> String {
    Timestamp::from_millisecond(ms as i64).unwrap().to_string()
}

/// The first due times after that time.
fn due(text_of_cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let times = times(&cron(text_of_cron, zone));
    let mut due = Vec::new();
    let mut next = times.first(ms(from));
    while let Some(due_ms) = next.filter(|_| due.len() < count) {
        due.push(text(due_ms));
        next = times.after(due_ms);
    }
    due
}

#[test]
fn a_period_counts_from_its_start() {
    assert_eq!(times(&every(1_000)).first(500), Some(1_500));
    assert_eq!(times(&every(1_000)).after(1_500), Some(2_500));
    let started = |start_ms| When { start_ms: Some(start_ms), ..every(1_000) };
    assert_eq!(times(&started(9_000)).first(500), Some(9_000));
    assert_eq!(times(&started(300)).first(2_500), Some(3_300));
    assert_eq!(times(&started(300)).first(2_300), Some(2_300));
    let ended = When { until_ms: Some(2_000), ..every(1_000) };
    assert_eq!(times(&ended).first(1_000), Some(2_000));
    assert_eq!((times(&ended).first(1_001), times(&ended).after(2_000)), (None, None));
    assert_eq!(times(&every(SCHEDULE_PERIOD_MS_MAX)).after(u64::MAX - 1), None);
}

#[test]
fn a_calendar_is_read_by_the_clocks_of_its_zone() {
    let weekdays = due("0 9 * * MON-FRI", "Europe/Berlin", "2026-03-27T08:00:00Z", 3);
    // Friday has passed; on Monday there is summer time.
    assert_eq!(weekdays, ["2026-03-30T07:00:00Z", "2026-03-31T07:00:00Z", "2026-04-01T07:00:00Z"]);
    let seconds = due("*/20 * * * * *", "UTC", "2026-03-27T08:00:00.500Z", 3);
    assert_eq!(seconds, ["2026-03-27T08:00:20Z", "2026-03-27T08:00:40Z", "2026-03-27T08:01:00Z"]);
    let started = When { start_ms: Some(ms("2026-01-01T00:00:00Z")), ..cron("0 0 1 1 *", "UTC") };
    assert_eq!(times(&started).first(ms("2025-06-01T00:00:00Z")).map(text).unwrap(), "2026-01-01T00:00:00Z");
    assert_eq!(times(&started).first(ms("2026-01-01T00:00:00Z")).map(text).unwrap(), "2027-01-01T00:00:00Z");
}

#[test]
fn a_time_that_does_not_exist_is_due_at_the_first_instant_after_it() {
    let gap = due("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(gap, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    // The one before the gap is not due again after it.
    let before_it = due("30 1 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(before_it, ["2026-03-29T00:30:00Z", "2026-03-29T23:30:00Z"]);
}

#[test]
fn a_time_that_comes_twice_is_due_once_unless_the_calendar_names_no_hour() {
    let fold = due("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(fold, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let half_hours = due("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", 6);
    assert_eq!(
        half_hours,
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z",
            "2026-10-25T02:30:00Z"
        ]
    );
}

#[test]
fn due_times_only_go_forward_in_every_zone_and_a_late_leader_goes_on_behind_the_last() {
    let calendars = ["0 * * * *", "30 2 * * *", "*/7 1-3 * * *", "0 0 * * SUN", "15 3 L * *", "0 12 29 2 *"];
    let zones =
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"];
    for (calendar, zone) in calendars.iter().flat_map(|calendar| zones.map(|zone| (calendar, zone))) {
        let times = times(&cron(calendar, zone));
        let mut due_ms = times.first(ms("2026-01-01T00:00:00Z")).unwrap();
        let mut before_ms = due_ms;
        for _ in 0..500 {
            let Some(next_ms) = times.after(due_ms) else { break };
            assert!(next_ms > due_ms, "{calendar} in {zone}: {} after {}", text(next_ms), text(due_ms));
            for late_ms in [0, 1, (next_ms - due_ms) / 2, next_ms - due_ms - 1] {
                let firing = times.fire(Missed::Once, due_ms, due_ms + late_ms);
                let expected = Firing { firings: vec![due_ms], next_due_ms: Some(next_ms) };
                assert_eq!(firing, expected, "{calendar} in {zone}: {late_ms} ms after {}", text(due_ms));
                let missed_one = times.fire(Missed::Once, before_ms, due_ms + late_ms);
                assert_eq!(missed_one, expected, "{calendar} in {zone}: {late_ms} ms after {}", text(due_ms));
            }
            (before_ms, due_ms) = (due_ms, next_ms);
        }
    }
}

#[test]
fn missed_due_times_fire_as_the_schedule_says() {
    let (times, missed) = (times(&every(1_000)), SCHEDULE_LATE_MS_MAX / 1_000);
    let fire = |missed, due_ms, now_ms| {
        let Firing { firings, next_due_ms } = times.fire(missed, due_ms, now_ms);
        (firings, next_due_ms.unwrap())
    };
    for policy in [Missed::Skip, Missed::Once, Missed::All] {
        assert_eq!(fire(policy, 5_000, 5_000), (vec![5_000], 6_000));
        assert_eq!(fire(policy, 5_000, 5_999), (vec![5_000], 6_000));
    }
    assert_eq!(fire(Missed::Once, 5_000, 9_500), (vec![9_000], 10_000));
    assert_eq!(fire(Missed::Skip, 5_000, 9_500), (vec![9_000], 10_000));
    assert_eq!(fire(Missed::All, 5_000, 7_500), (vec![5_000, 6_000, 7_000], 8_000));
    // Step by step, however many there are.
    let (firings, next_ms) = fire(Missed::All, 0, 1_000_000_000_000);
    assert_eq!((firings.len(), next_ms), (SCHEDULE_FIRINGS_AT_ONCE_MAX, 1_000 * firings.len() as u64));

    let hourly = DueTimes::new(&cron("0 * * * *", "UTC")).unwrap();
    let (due_ms, hour) = (ms("2026-01-01T10:00:00Z"), 3_600_000);
    let skipped = hourly.fire(Missed::Skip, due_ms, due_ms + 5 * hour + missed * 1_000 + 1);
    assert_eq!(skipped, Firing { firings: vec![], next_due_ms: Some(due_ms + 6 * hour) });
    let late = hourly.fire(Missed::Skip, due_ms, due_ms + 5 * hour + missed * 1_000);
    assert_eq!(late.firings, [due_ms + 5 * hour]);
    let once = hourly.fire(Missed::Once, due_ms, due_ms + 5 * hour + 1_800_000);
    assert_eq!(once, Firing { firings: vec![due_ms + 5 * hour], next_due_ms: Some(due_ms + 6 * hour) });
    let years = hourly.fire(Missed::Once, due_ms, due_ms + 30_000 * hour);
    assert_eq!(years.firings, [due_ms + 30_000 * hour]);

    let ended = When { until_ms: Some(7_000), ..every(1_000) };
    let ended = DueTimes::new(&ended).unwrap();
    let over = |firings| Firing { firings, next_due_ms: None };
    assert_eq!(ended.fire(Missed::Once, 5_000, 20_000), over(vec![7_000]));
    assert_eq!(ended.fire(Missed::All, 5_000, 20_000), over(vec![5_000, 6_000, 7_000]));
}

#[test]
fn what_is_no_schedule_is_refused_with_what_is_wrong() {
    let refused = |when: &When| DueTimes::new(when).err().expect("it was taken").to_string();
    for wrong in
        ["", "* * *", "61 * * * *", "* * * * MOO", "a b c d e", "* * * * * * * *", "\u{0}", "ü * * * *"]
    {
        let text = refused(&cron(wrong, "UTC"));
        assert!(text.contains("is no calendar"), "{wrong:?}: {text}");
    }
    assert!(refused(&cron(&"*".repeat(300), "UTC")).contains("300 bytes"));
    for wrong in ["", "Berlin", "Europe/Atlantis", "../../etc/passwd", "+25:99"] {
        let text = refused(&cron("0 9 * * *", wrong));
        assert!(text.contains("is no time zone"), "{wrong:?}: {text}");
    }
    assert!(refused(&every(99)).contains("got 99 ms"));
    assert!(refused(&every(u64::MAX)).contains("ms"));
    let began = Instant::now();
    assert_eq!(times(&cron("0 0 30 2 *", "UTC")).first(ms("2026-01-01T00:00:00Z")), None);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
