//! What this node tells Prometheus, as text (exposition format 0.0.4), on `/metrics` of its health port. All names
//! stand here. A name carries its unit, and no label has as many values as there are agents.

use crate::{region::Measures, regions::Regions};
use afdg_types::RegionId;
use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{AppendHeaders, IntoResponse},
    routing::get,
};
use std::{fmt::Write, time::Duration};

/// A region that is too busy to count by then is left out.
const MEASURED_WITHIN: Duration = Duration::from_secs(2);

type Value = fn(&Measures) -> usize;

/// Gauges of each region that this node leads, with what they are.
const OF_REGIONS: [(&str, &str, Value); 10] = [
    (
        "afdg_region_dead_letters",
        "Messages that were given up and wait for a person to have them tried again or dropped",
        |region| region.dead_letters,
    ),
    ("afdg_region_in_flight_messages", "Messages admitted and not yet answered", |region| {
        region.messages_in_flight
    }),
    ("afdg_region_in_flight_bytes", "Request bytes of those", |region| region.message_bytes_in_flight),
    ("afdg_region_running_turns", "Turns that run, read-only ones left out", |region| region.turns_running),
    ("afdg_region_calling_turns", "Of those, turns that wait for calls to other agents", |region| {
        region.turns_calling
    }),
    ("afdg_region_inbox_messages", "Sends that were taken and whose turn is not committed", |region| {
        region.inbox_messages
    }),
    ("afdg_region_inbox_bytes", "Request bytes of those", |region| region.inbox_bytes),
    (
        "afdg_region_due_messages",
        "Accepted sends that are held back or wait for their next attempt",
        |region| region.due_messages,
    ),
    ("afdg_region_outbox_messages", "Sends of turns on their way to their receivers", |region| {
        region.outbox_messages
    }),
    ("afdg_region_outbox_bytes", "Request bytes of those", |region| region.outbox_bytes),
];

/// The one that counts up.
const REFUSED: (&str, &str) = (
    "afdg_region_refused_messages_total",
    "Messages that came when there was no room for them, since this replica leads",
);

/// The page, as a service for the health port.
pub fn page(regions: Regions) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let regions = regions.clone();
            async move { tell(&regions).await }
        }),
    )
}

async fn tell(regions: &Regions) -> impl IntoResponse + use<> {
    let replicas = regions.all();
    let leads: Vec<_> =
        replicas.iter().map(|(region, handle)| (*region, handle.status().lead.is_mine)).collect();
    let led = replicas.into_iter().filter(|(_, handle)| handle.status().lead.is_mine);
    let measured = led.map(async |(region, handle)| {
        let measures = tokio::time::timeout(MEASURED_WITHIN, handle.measures()).await.ok().flatten();
        measures.map(|measures| (region, measures))
    });
    let measured: Vec<_> = futures::future::join_all(measured).await.into_iter().flatten().collect();
    (AppendHeaders([(CONTENT_TYPE, "text/plain; version=0.0.4")]), render(&leads, &measured))
}

/// `leads` has all replicas of this node, `measured` those regions that it leads.
fn render(leads: &[(RegionId, bool)], measured: &[(RegionId, Measures)]) -> String {
    let mut text = String::with_capacity(64 * (leads.len() + 10 * measured.len() + 20));
    let help = "Whether this node leads the region, for each of which it has a replica";
    let leads = leads.iter().map(|(region, leads)| (*region, usize::from(*leads)));
    values(&mut text, "gauge", "afdg_region_leads", help, leads);
    for (name, help, value) in OF_REGIONS {
        let measured = measured.iter().map(|(region, measures)| (*region, value(measures)));
        values(&mut text, "gauge", name, help, measured);
    }
    let refused = measured.iter().map(|(region, measures)| (*region, measures.messages_refused));
    values(&mut text, "counter", REFUSED.0, REFUSED.1, refused);
    text
}

fn values(
    text: &mut String,
    kind: &str,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (RegionId, usize)>,
) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (region, value) in values {
        let _ = writeln!(text, "{name}{{region=\"{region}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_in_prometheus_format() {
        let measures = Measures { dead_letters: 3, messages_refused: 70, ..Measures::default() };
        let text = render(&[(RegionId(1), true), (RegionId(2), false)], &[(RegionId(1), measures)]);
        let start = "\
# HELP afdg_region_leads Whether this node leads the region, for each of which it has a replica
# TYPE afdg_region_leads gauge
afdg_region_leads{region=\"1\"} 1
afdg_region_leads{region=\"2\"} 0
# HELP afdg_region_dead_letters Messages that were given up and wait for a person to have them tried again or dropped
# TYPE afdg_region_dead_letters gauge
afdg_region_dead_letters{region=\"1\"} 3
";
        assert!(text.starts_with(start), "{text}");
        let end = "\
# TYPE afdg_region_refused_messages_total counter
afdg_region_refused_messages_total{region=\"1\"} 70
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn names_are_unique_and_carry_their_unit() {
        let mut names: Vec<_> = OF_REGIONS.map(|(name, ..)| name).to_vec();
        assert!(names.iter().all(|name| {
            let unit = name.rsplit('_').next();
            ["letters", "messages", "bytes", "turns"].map(Some).contains(&unit)
        }));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OF_REGIONS.len());
    }
}
