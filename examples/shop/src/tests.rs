use super::*;
use afdg_agent::{AgentRef, Call, CallError, testing::TestGrid};
use v1::CustomerCalls;

fn record(date: &str, amount_cents: i64) -> Call<RecordPurchaseResponse> {
    let request = RecordPurchaseRequest { date: date.to_owned(), amount_cents, ..Default::default() };
    CustomerCalls::record_purchase("ann", request)
}

fn list(page_size: i32, page_token: &str) -> Call<ListPurchasesResponse> {
    let page_token = page_token.to_owned();
    CustomerCalls::list_purchases("ann", ListPurchasesRequest { page_size, page_token, ..Default::default() })
}

async fn summary(grid: &TestGrid) -> Summary {
    grid.call(CustomerCalls::get_summary("ann", GetSummaryRequest::default())).await.unwrap()
}

fn reason<R>(result: Result<R, CallError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.reason().to_owned(),
    }
}

#[tokio::test]
async fn purchases_add_up() {
    let grid = TestGrid::new([customer()]);
    assert_eq!(summary(&grid).await, Summary::default());
    for (number, (date, cents)) in
        [("20240229", 1_999), ("20231231", 0), ("20240301", 1)].into_iter().enumerate()
    {
        let recorded = grid.call(record(date, cents)).await.unwrap();
        assert_eq!(recorded.count, number as u64 + 1);
    }
    let known = Summary {
        count: 3,
        total_cents: 2_000,
        first_date: "20231231".to_owned(),
        last_date: "20240301".to_owned(),
    };
    assert_eq!(summary(&grid).await, known);
    let ann = AgentRef::new("shop.v1.Customer", "ann").unwrap();
    let stored = grid.items(&ann, PURCHASES).await.unwrap();
    assert_eq!(stored[0].to_string(), r#"{"amount_cents":1999,"date":"20240229"}"#);
}

#[tokio::test]
async fn what_is_no_purchase_is_refused_and_changes_nothing() {
    let grid = TestGrid::new([customer()]);
    for date in
        ["", "2024-1-1", "20230229", "20241301", "20240431", "20240100", "00000101", "２０２４０１０１"]
    {
        assert_eq!(reason(grid.call(record(date, 1)).await), "DATE_INVALID", "{date}");
    }
    assert_eq!(reason(grid.call(record("20240101", -1)).await), "AMOUNT_NEGATIVE");
    grid.call(record("20240101", i64::MAX)).await.unwrap();
    assert_eq!(reason(grid.call(record("20240102", 1)).await), "TOTAL_OVERFLOW");
    let known = summary(&grid).await;
    assert_eq!((known.count, known.total_cents, &*known.last_date), (1, i64::MAX, "20240101"));
}

#[tokio::test]
async fn purchases_are_listed_page_by_page() {
    let grid = TestGrid::new([customer()]);
    for number in 0..250 {
        grid.call(record("20240101", number)).await.unwrap();
    }
    let (mut amounts, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = grid.call(list(0, &token)).await.unwrap();
        amounts.extend(page.purchases.iter().map(|purchase| purchase.amount_cents));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((amounts, pages), ((0..250).collect(), 3));
    let exact = grid.call(list(250, "")).await.unwrap();
    assert_eq!((exact.purchases.len(), &*exact.next_page_token), (250, ""));
    let past = grid.call(list(1, "18446744073709551615")).await.unwrap();
    assert_eq!((past.purchases.len(), &*past.next_page_token), (0, ""));
    for (size, token, refusal) in
        [(-1, "", "PAGE_SIZE_INVALID"), (1_001, "", "PAGE_SIZE_INVALID"), (1, "x", "PAGE_TOKEN_INVALID")]
    {
        assert_eq!(reason(grid.call(list(size, token)).await), refusal);
    }
}

#[tokio::test]
async fn the_last_purchases_cost_no_more_than_the_first() {
    let grid = TestGrid::new([customer()]);
    let mut most = [0; 2];
    for number in 0..4_000 {
        grid.call(record("20240101", 100)).await.unwrap();
        let half = &mut most[number / 2_000];
        *half = grid.last_turn_bytes().max(*half);
    }
    assert!(most[1] <= most[0] + 8, "bytes written by a turn: at first {}, later {}", most[0], most[1]);
}
