//! Schedules as operators see them, by the admin interface. `cli/tests/schedules.rs` has the command line.

use crate::alarms::{Alarms, every};
use afdg_proto::pb::admin::{
    CancelSchedulesRequest, ListSchedulesRequest, ScheduleFilter, ScheduleName,
    schedules_client::SchedulesClient,
};
use anyhow::Result;

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_schedule_rings_no_more_and_pages_go_on_from_region_to_region() -> Result<()> {
    let alarms = Alarms::open(3).await?;
    let mut schedules = SchedulesClient::new(alarms.client.channel());
    for number in 0..10 {
        alarms.set(&format!("p-{number}"), every(60_000)).await?;
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = Some(ScheduleFilter { name_prefix: "n".to_owned(), ..ScheduleFilter::default() });
        let request = ListSchedulesRequest { filter, page_token, page_size: 3 };
        let page = schedules.list_schedules(request).await?.into_inner();
        assert!(page.schedules.len() <= 3);
        found.extend(page.schedules.into_iter().map(|schedule| schedule.agent));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, (0..10).map(|number| format!("alarm.v1.Alarm/p-{number}")).collect::<Vec<_>>());

    alarms.set("ring", every(200)).await?;
    alarms.rung("ring", 2).await?;
    let name = ScheduleName { agent: "alarm.v1.Alarm/ring".to_owned(), name: "n".to_owned() };
    let cancel = |reason: &str| CancelSchedulesRequest {
        schedules: vec![name.clone()],
        actor: "a test".to_owned(),
        reason: reason.to_owned(),
        filter: None,
    };
    let refused = schedules.cancel_schedules(cancel("")).await.unwrap_err();
    assert!(refused.message().contains("reason"), "{refused}");
    assert_eq!(schedules.cancel_schedules(cancel("enough")).await?.into_inner().cancelled, 1);
    let rung = alarms.rings("ring").await?.len();
    alarms.set("other", every(200)).await?;
    alarms.rung("other", 4).await?;
    // What had been sent when it was cancelled may have rung after.
    assert!(alarms.rings("ring").await?.len() <= rung + 1);
    assert_eq!(schedules.cancel_schedules(cancel("again")).await?.into_inner().cancelled, 0);
    // Set again it is another schedule.
    alarms.set("ring", every(200)).await?;
    alarms.rung("ring", rung + 2).await?;
    alarms.grid.stop().await;
    Ok(())
}
