use super::*;
use afdg_agent::{
    AgentError, AgentRef, Call, CallError, Context, async_trait,
    testing::{NOW_MS_DEFAULT, TestGrid},
};
use v1::{
    AccountAgent, AccountCalls, Balance, ChargeRequest, DepositRequest, ExpireRequest, GetBalanceRequest,
    GetOrderRequest, GetStockRequest, InboxCalls, ListConfirmationsRequest, OrderCalls, OrderLine,
    OrderState, PayRequest, PlaceRequest, ProductCalls, RefundRequest, ReleaseRequest, ReserveRequest,
    RestockRequest, SellRequest, Status,
};

const WAIT_MS: u64 = 60_000;

/// 10 pens at 150 cents, 5 inks at 700, and an account with 5,000 cents.
async fn open() -> TestGrid {
    let grid = TestGrid::new([order(), product(), account(), inbox()]);
    for (product, units, unit_cents) in [("pen", 10, 150), ("ink", 5, 700)] {
        grid.call(restock(product, units, unit_cents)).await.unwrap();
    }
    let deposit = DepositRequest { cents: 5_000, ..Default::default() };
    grid.call(AccountCalls::deposit("ann", deposit)).await.unwrap();
    grid
}

fn restock(product: &str, units: i64, unit_cents: i64) -> Call<v1::Stock> {
    ProductCalls::restock(product, RestockRequest { units, unit_cents, ..Default::default() })
}

fn request(lines: &[(&str, i64)]) -> PlaceRequest {
    let line = |(product, units): &(&str, i64)| OrderLine { product: (*product).to_owned(), units: *units };
    PlaceRequest {
        customer: "ann".to_owned(),
        account: "ann".to_owned(),
        lines: lines.iter().map(line).collect(),
        pay_within_ms: WAIT_MS,
        ..Default::default()
    }
}

async fn place(grid: &TestGrid, order: &str, lines: &[(&str, i64)]) -> OrderState {
    grid.call(OrderCalls::place(order, request(lines))).await.unwrap()
}

async fn place_and_pay(grid: &TestGrid, order: &str, lines: &[(&str, i64)]) -> OrderState {
    let request = PlaceRequest { pay_at_once: true, ..request(lines) };
    grid.call(OrderCalls::place(order, request)).await.unwrap()
}

fn pay(order: &str) -> Call<OrderState> {
    OrderCalls::pay(order, PayRequest::default())
}

async fn status(grid: &TestGrid, order: &str) -> Status {
    grid.call(OrderCalls::get_order(order, GetOrderRequest::default())).await.unwrap().status()
}

/// Left, held, sold.
async fn stock(grid: &TestGrid, product: &str) -> (i64, i64, i64) {
    let stock = grid.call(ProductCalls::get_stock(product, GetStockRequest::default())).await.unwrap();
    (stock.left, stock.held, stock.sold)
}

/// There, charged.
async fn money(grid: &TestGrid) -> (i64, i64) {
    let balance = grid.call(AccountCalls::get_balance("ann", GetBalanceRequest::default())).await.unwrap();
    (balance.cents, balance.charged_cents)
}

/// The orders that were confirmed, and for how much.
async fn confirmed(grid: &TestGrid) -> Vec<(String, i64)> {
    let list = InboxCalls::list_confirmations("ann", ListConfirmationsRequest::default());
    let listed = grid.call(list).await.unwrap();
    assert_eq!(listed.count, listed.confirmations.len() as u64);
    listed.confirmations.into_iter().map(|c| (c.order, c.total_cents)).collect()
}

fn refusal<R: std::fmt::Debug>(result: Result<R, CallError>) -> AgentError {
    match result.unwrap_err() {
        CallError::Agent(refusal) => refusal,
        CallError::Grid(error) => panic!("the grid failed: {error}"),
    }
}

async fn nothing_has_happened(grid: &TestGrid) {
    assert_eq!((stock(grid, "pen").await, stock(grid, "ink").await), ((10, 0, 0), (5, 0, 0)));
    assert_eq!((money(grid).await, confirmed(grid).await), ((5_000, 0), vec![]));
    assert_eq!(grid.take_failed_sends(), []);
}

async fn go_to(grid: &TestGrid, after_ms: u64) {
    grid.set_now_ms(NOW_MS_DEFAULT + after_ms);
    grid.deliver_due().await;
}

#[tokio::test]
async fn an_order_that_is_paid_at_once_sells_charges_and_confirms() {
    let grid = open().await;
    let placed = place_and_pay(&grid, "o1", &[("pen", 4), ("ink", 2)]).await;
    assert_eq!((placed.status(), placed.total_cents, &*placed.reason), (Status::Paid, 2_000, ""));
    assert_eq!((stock(&grid, "pen").await, stock(&grid, "ink").await), ((6, 0, 4), (3, 0, 2)));
    assert_eq!(money(&grid).await, (3_000, 2_000));
    assert_eq!(confirmed(&grid).await, [("o1".to_owned(), 2_000)]);
    assert_eq!((grid.take_failed_sends(), grid.sends_waiting()), (vec![], 0));
}

#[tokio::test]
async fn an_order_holds_its_units_until_it_is_paid() {
    let grid = open().await;
    let placed = place(&grid, "o1", &[("pen", 4), ("ink", 2)]).await;
    assert_eq!((placed.status(), placed.total_cents), (Status::AwaitingPayment, 2_000));
    assert_eq!((stock(&grid, "pen").await, money(&grid).await), ((6, 4, 0), (5_000, 0)));
    // The price is that of the reservation.
    grid.call(restock("pen", 0, 999)).await.unwrap();
    assert_eq!(grid.call(pay("o1")).await.unwrap().status(), Status::Paid);
    assert_eq!((stock(&grid, "pen").await, money(&grid).await), ((6, 0, 4), (3_000, 2_000)));
    assert_eq!(confirmed(&grid).await, [("o1".to_owned(), 2_000)]);

    // Paid is paid: neither another payment nor the timer changes anything.
    let again = refusal(grid.call(pay("o1")).await);
    assert_eq!((&*again.reason, &*again.metadata["status"]), ("ORDER_CLOSED", "STATUS_PAID"));
    go_to(&grid, WAIT_MS).await;
    assert_eq!((status(&grid, "o1").await, grid.sends_waiting()), (Status::Paid, 0));
    assert_eq!((stock(&grid, "pen").await, money(&grid).await), ((6, 0, 4), (3_000, 2_000)));
    assert_eq!((confirmed(&grid).await.len(), grid.take_failed_sends()), (1, vec![]));
}

#[tokio::test]
async fn a_product_that_is_sold_out_rejects_the_order_and_gives_the_rest_back() {
    let grid = open().await;
    for (order, lines, reason) in [
        ("o1", [("pen", 4), ("ink", 6)], "STOCK_SHORT"),
        ("o2", [("ink", 6), ("pen", 4)], "STOCK_SHORT"),
        ("o3", [("pen", 11), ("ink", 6)], "STOCK_SHORT"),
        ("o4", [("pen", 1), ("dodo", 1)], "PRODUCT_UNKNOWN"),
    ] {
        let placed = place_and_pay(&grid, order, &lines).await;
        assert_eq!((placed.status(), &*placed.reason, placed.total_cents), (Status::Rejected, reason, 0));
        assert_eq!(refusal(grid.call(pay(order)).await).reason, "ORDER_CLOSED");
    }
    nothing_has_happened(&grid).await;
    // What one order let go, another can have, to the last unit.
    let all = place_and_pay(&grid, "o5", &[("pen", 10), ("ink", 5)]).await;
    assert_eq!((all.status(), money(&grid).await), (Status::Paid, (0, 5_000)));
    assert_eq!((stock(&grid, "pen").await, stock(&grid, "ink").await), ((0, 0, 10), (0, 0, 5)));
}

#[tokio::test]
async fn an_order_that_cant_be_paid_gives_everything_back() {
    let grid = open().await;
    grid.call(restock("ink", 0, 5_000)).await.unwrap();
    let placed = place_and_pay(&grid, "o1", &[("pen", 1), ("ink", 1)]).await;
    assert_eq!((placed.status(), &*placed.reason), (Status::Declined, "FUNDS_SHORT"));
    nothing_has_happened(&grid).await;
    // The same if it is paid later. That was its one chance.
    assert_eq!(place(&grid, "o2", &[("pen", 1), ("ink", 1)]).await.status(), Status::AwaitingPayment);
    assert_eq!(grid.call(pay("o2")).await.unwrap().status(), Status::Declined);
    let again = refusal(grid.call(pay("o2")).await);
    assert_eq!(again.metadata["status"], "STATUS_DECLINED");
    nothing_has_happened(&grid).await;
}

#[tokio::test]
async fn an_order_that_nobody_pays_expires_and_gives_everything_back() {
    let grid = open().await;
    place(&grid, "o1", &[("pen", 4), ("ink", 2)]).await;
    go_to(&grid, WAIT_MS - 1).await;
    assert_eq!((status(&grid, "o1").await, grid.sends_waiting()), (Status::AwaitingPayment, 1));
    assert_eq!(stock(&grid, "pen").await, (6, 4, 0));
    go_to(&grid, WAIT_MS).await;
    assert_eq!((status(&grid, "o1").await, grid.sends_waiting()), (Status::Expired, 0));
    nothing_has_happened(&grid).await;
    let late = refusal(grid.call(pay("o1")).await);
    assert_eq!((&*late.reason, &*late.metadata["status"]), ("ORDER_CLOSED", "STATUS_EXPIRED"));
    nothing_has_happened(&grid).await;
}

#[tokio::test]
async fn whichever_comes_first_of_payment_and_timer_decides() {
    for payment_first in [true, false] {
        let grid = open().await;
        place(&grid, "o1", &[("pen", 4)]).await;
        // Both are there in the same millisecond.
        grid.set_now_ms(NOW_MS_DEFAULT + WAIT_MS);
        if !payment_first {
            grid.deliver_due().await;
        }
        let paid = grid.call(pay("o1")).await;
        grid.deliver_due().await;
        if payment_first {
            assert_eq!((paid.unwrap().status(), status(&grid, "o1").await), (Status::Paid, Status::Paid));
            assert_eq!((stock(&grid, "pen").await, money(&grid).await), ((6, 0, 4), (4_400, 600)));
            assert_eq!(confirmed(&grid).await, [("o1".to_owned(), 600)]);
        } else {
            assert_eq!(refusal(paid).reason, "ORDER_CLOSED");
            assert_eq!(status(&grid, "o1").await, Status::Expired);
            nothing_has_happened(&grid).await;
        }
        assert_eq!((grid.take_failed_sends(), grid.sends_waiting()), (vec![], 0));
    }
}

#[tokio::test]
async fn nobody_can_expire_an_order_before_its_time() {
    let grid = open().await;
    let expire = || OrderCalls::expire("o1", ExpireRequest::default());
    assert_eq!(refusal(grid.call(expire()).await).reason, "ORDER_UNKNOWN");
    place(&grid, "o1", &[("pen", 4)]).await;
    assert_eq!(refusal(grid.call(expire()).await).reason, "ORDER_NOT_DUE");
    assert_eq!(status(&grid, "o1").await, Status::AwaitingPayment);
}

#[tokio::test]
async fn an_order_is_placed_once() {
    let grid = open().await;
    place(&grid, "o1", &[("pen", 4)]).await;
    let again = OrderCalls::place("o1", request(&[("ink", 1)]));
    assert_eq!(refusal(grid.call(again).await).reason, "ORDER_PLACED");
    assert_eq!((stock(&grid, "pen").await, stock(&grid, "ink").await), ((6, 4, 0), (5, 0, 0)));
    let unknown = grid.call(OrderCalls::get_order("o2", GetOrderRequest::default())).await;
    assert_eq!(refusal(unknown).reason, "ORDER_UNKNOWN");
    assert_eq!(refusal(grid.call(pay("o2")).await).reason, "ORDER_UNKNOWN");
}

#[tokio::test]
async fn what_is_no_order_is_refused_before_anybody_is_touched() {
    let grid = open().await;
    let long = "k".repeat(1_000);
    let many: Vec<String> = (0..=LINES_MAX).map(|number| format!("p{number}")).collect();
    let many: Vec<_> = many.iter().map(|product| (&**product, 1)).collect();
    let good = request(&[("pen", 1)]);
    for bad in [
        request(&[]),
        request(&many),
        request(&[("pen", 0)]),
        request(&[("pen", 1), ("ink", -1)]),
        request(&[("pen", UNITS_MAX + 1)]),
        request(&[("pen", 1), ("pen", 1)]),
        request(&[("pen", 1), ("", 1)]),
        request(&[("pen", 1), (&*long, 1)]),
        PlaceRequest { customer: String::new(), ..good.clone() },
        PlaceRequest { account: String::new(), ..good.clone() },
        PlaceRequest { account: long.clone(), ..good.clone() },
        PlaceRequest { pay_within_ms: u64::MAX, ..good.clone() },
    ] {
        assert_eq!(refusal(grid.call(OrderCalls::place("o1", bad)).await).reason, "ORDER_INVALID");
    }
    let long_order = "k".repeat(ORDER_BYTES_MAX + 1);
    let placed = grid.call(OrderCalls::place(&long_order, good.clone())).await;
    assert_eq!(refusal(placed).reason, "ORDER_INVALID");
    nothing_has_happened(&grid).await;
    assert_eq!(grid.sends_waiting(), 0);
    // And what just is one is not.
    let placed = grid.call(OrderCalls::place(&"k".repeat(ORDER_BYTES_MAX), good)).await.unwrap();
    assert_eq!(placed.status(), Status::AwaitingPayment);
}

/// An account whose charges end without saying whether they happened.
struct Silent;

#[async_trait]
impl AccountAgent for Silent {
    async fn deposit(&self, _: &mut Context, _: DepositRequest) -> Result<Balance, AgentError> {
        Ok(Balance::default())
    }

    async fn charge(&self, ctx: &mut Context, _: ChargeRequest) -> Result<Balance, AgentError> {
        // A limit of the grid: whatever is returned, the caller sees the grid's error.
        let _ = ctx.entity("").len().await;
        Ok(Balance::default())
    }

    async fn refund(&self, ctx: &mut Context, request: RefundRequest) -> Result<Balance, AgentError> {
        ctx.entity("refunded").push(&request.order).await?;
        Ok(Balance::default())
    }

    async fn get_balance(&self, _: &mut Context, _: GetBalanceRequest) -> Result<Balance, AgentError> {
        Ok(Balance::default())
    }
}

#[tokio::test]
async fn a_charge_of_unknown_outcome_is_given_back() {
    let grid = TestGrid::new([order(), product(), inbox(), v1::account_agent(Silent)]);
    grid.call(restock("pen", 10, 150)).await.unwrap();
    let placed = place_and_pay(&grid, "o1", &[("pen", 4)]).await;
    assert_eq!((placed.status(), stock(&grid, "pen").await), (Status::Declined, (10, 0, 0)));
    let ann = AgentRef::new("order.v1.Account", "ann").unwrap();
    let refunded = grid.items(&ann, "refunded").await.unwrap();
    assert_eq!((refunded, grid.take_failed_sends()), (vec!["o1".into()], vec![]));
}

#[tokio::test]
async fn a_product_that_cant_be_reached_is_told_to_let_go_too() {
    let grid = TestGrid::new([order(), account(), inbox()]);
    let placed = place(&grid, "o1", &[("pen", 4)]).await;
    assert_eq!((placed.status(), &*placed.reason), (Status::Rejected, "UNKNOWN_TYPE"));
    let failed = grid.take_failed_sends();
    assert_eq!((failed.len(), &*failed[0].method, failed[0].agent.key()), (1, "Release", "pen"));
}

#[tokio::test]
async fn a_product_takes_each_step_of_an_order_once_and_none_out_of_turn() {
    let grid = open().await;
    let order = || "o1".to_owned();
    let reserve =
        |units| ProductCalls::reserve("pen", ReserveRequest { order: order(), units, ..Default::default() });
    let sell = || ProductCalls::sell("pen", SellRequest { order: order(), ..Default::default() });
    let release = || ProductCalls::release("pen", ReleaseRequest { order: order(), ..Default::default() });
    assert_eq!(refusal(grid.call(sell()).await).reason, "RESERVATION_CLOSED");
    for units in [0, -1, UNITS_MAX + 1] {
        assert_eq!(refusal(grid.call(reserve(units)).await).reason, "UNITS_INVALID");
    }
    for _ in 0..2 {
        assert_eq!(grid.call(reserve(4)).await.unwrap(), v1::Reservation { units: 4, cents: 600 });
        assert_eq!(stock(&grid, "pen").await, (6, 4, 0));
    }
    assert_eq!(refusal(grid.call(reserve(3)).await).reason, "RESERVATION_CLOSED");
    for _ in 0..2 {
        grid.call(sell()).await.unwrap();
        assert_eq!(stock(&grid, "pen").await, (6, 0, 4));
    }
    assert_eq!(refusal(grid.call(release()).await).reason, "RESERVATION_SOLD");
    assert_eq!(refusal(grid.call(reserve(4)).await).reason, "RESERVATION_CLOSED");
    assert_eq!(stock(&grid, "pen").await, (6, 0, 4));
}

#[tokio::test]
async fn what_comes_after_its_release_finds_the_door_closed() {
    let grid = open().await;
    for (order, reserved) in [("early", false), ("late", true)] {
        let reserve = || {
            let request = ReserveRequest { order: order.to_owned(), units: 4, ..Default::default() };
            ProductCalls::reserve("pen", request)
        };
        if reserved {
            grid.call(reserve()).await.unwrap();
        }
        for _ in 0..2 {
            let release = ReleaseRequest { order: order.to_owned(), ..Default::default() };
            grid.call(ProductCalls::release("pen", release)).await.unwrap();
        }
        assert_eq!(refusal(grid.call(reserve()).await).reason, "RESERVATION_CLOSED");
        let sell = ProductCalls::sell("pen", SellRequest { order: order.to_owned(), ..Default::default() });
        assert_eq!(refusal(grid.call(sell).await).reason, "RESERVATION_CLOSED");
    }
    nothing_has_happened(&grid).await;
}

#[tokio::test]
async fn an_account_charges_and_refunds_each_order_once() {
    let grid = open().await;
    let charge = |order: &str, cents| {
        AccountCalls::charge("ann", ChargeRequest { order: order.to_owned(), cents, ..Default::default() })
    };
    let refund = |order: &str| {
        AccountCalls::refund("ann", RefundRequest { order: order.to_owned(), ..Default::default() })
    };
    let short = refusal(grid.call(charge("o1", 5_001)).await);
    assert_eq!((&*short.reason, &*short.metadata["short_by_cents"]), ("FUNDS_SHORT", "1"));
    assert_eq!(refusal(grid.call(charge("o1", -1)).await).reason, "AMOUNT_INVALID");
    for _ in 0..2 {
        grid.call(charge("o1", 600)).await.unwrap();
        assert_eq!(money(&grid).await, (4_400, 600));
    }
    assert_eq!(refusal(grid.call(charge("o1", 599)).await).reason, "CHARGE_CLOSED");
    for _ in 0..2 {
        grid.call(refund("o1")).await.unwrap();
        grid.call(refund("never-charged")).await.unwrap();
        assert_eq!(money(&grid).await, (5_000, 0));
    }
    for order in ["o1", "never-charged"] {
        assert_eq!(refusal(grid.call(charge(order, 600)).await).reason, "CHARGE_CLOSED");
    }
}

#[tokio::test]
async fn sums_stay_within_their_bounds() {
    let grid = open().await;
    for (units, unit_cents) in [(-1, 1), (1, -1), (1, UNIT_CENTS_MAX + 1), (1_000_000_000_000 - 9, 1)] {
        assert_eq!(refusal(grid.call(restock("pen", units, unit_cents)).await).reason, "RESTOCK_INVALID");
    }
    let deposit = |cents| AccountCalls::deposit("ann", DepositRequest { cents, ..Default::default() });
    place_and_pay(&grid, "o1", &[("pen", 4)]).await;
    for cents in [-1, i64::MAX - 4_999] {
        assert_eq!(refusal(grid.call(deposit(cents)).await).reason, "AMOUNT_INVALID");
    }
    grid.call(deposit(i64::MAX - 5_000)).await.unwrap();
    let refund = RefundRequest { order: "o1".to_owned(), ..Default::default() };
    grid.call(AccountCalls::refund("ann", refund)).await.unwrap();
    assert_eq!(money(&grid).await, (i64::MAX, 0));
}

#[tokio::test]
async fn the_dearest_order_fits() {
    let grid = open().await;
    let products: Vec<String> = (0..LINES_MAX).map(|number| format!("p{number}")).collect();
    for product in &products {
        grid.call(restock(product, UNITS_MAX, UNIT_CENTS_MAX)).await.unwrap();
    }
    let lines: Vec<_> = products.iter().map(|product| (&**product, UNITS_MAX)).collect();
    let placed = place(&grid, "o1", &lines).await;
    assert_eq!(placed.total_cents, LINES_MAX as i64 * UNITS_MAX * UNIT_CENTS_MAX);
    assert_eq!(grid.call(pay("o1")).await.unwrap().reason, "FUNDS_SHORT");
}

#[tokio::test]
async fn confirmations_are_listed_page_by_page() {
    let grid = open().await;
    grid.call(restock("pen", 1_000, 1)).await.unwrap();
    for number in 0..130 {
        place_and_pay(&grid, &format!("o{number}"), &[("pen", 1)]).await;
    }
    let (mut orders, mut pages) = (Vec::new(), 0);
    loop {
        let request = ListConfirmationsRequest { first: orders.len() as u64, ..Default::default() };
        let page = grid.call(InboxCalls::list_confirmations("ann", request)).await.unwrap();
        orders.extend(page.confirmations.into_iter().map(|confirmation| confirmation.order));
        pages += 1;
        if orders.len() as u64 == page.count {
            break;
        }
    }
    assert_eq!((orders, pages), ((0..130).map(|number| format!("o{number}")).collect(), 2));
}
