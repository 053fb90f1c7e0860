//! What is in stock, and what each order has of it.

use crate::{
    UNIT_CENTS_MAX, UNITS_MAX, entity_of,
    v1::{self, GetStockRequest, ProductAgent, ReleaseRequest, ReserveRequest, RestockRequest, SellRequest},
};
use afdg_agent::{AgentError, AgentType, Context, async_trait};
use serde::{Deserialize, Serialize};

/// The agent type `order.v1.Product`, for a host.
pub fn product() -> AgentType {
    v1::product_agent(Product)
}

/// Entity that holds the [`Stock`].
const STOCK: &str = "stock";
/// Most units that a product ever had.
const STOCK_MAX: i64 = 1_000_000_000_000;

/// Units by what became of them; they move from one to the other and are never made up.
#[derive(Default, Serialize, Deserialize)]
struct Stock {
    left: i64,
    held: i64,
    sold: i64,
    unit_cents: i64,
}

/// What an order has of the product. It stays when it is closed: that is how a step that comes twice, or
/// late, is told from a new one.
#[derive(Serialize, Deserialize)]
struct Reservation {
    state: State,
    units: i64,
    cents: i64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Held,
    Sold,
    Released,
}

struct Product;

#[async_trait]
impl ProductAgent for Product {
    async fn restock(&self, ctx: &mut Context, request: RestockRequest) -> Result<v1::Stock, AgentError> {
        let RestockRequest { units, unit_cents, .. } = request;
        let mut stock = stock(ctx).await?.unwrap_or_default();
        let room = STOCK_MAX - stock.left - stock.held - stock.sold;
        if !(0..=room).contains(&units) || !(0..=UNIT_CENTS_MAX).contains(&unit_cents) {
            let message = format!(
                "0 to {room} units can be added, at 0 to {UNIT_CENTS_MAX} cents; got {units} at {unit_cents}"
            );
            return Err(AgentError::invalid("RESTOCK_INVALID", message));
        }
        stock.left += units;
        stock.unit_cents = unit_cents;
        ctx.entity(STOCK).set_value(&stock).await?;
        Ok(shown(&stock))
    }

    async fn reserve(
        &self,
        ctx: &mut Context,
        request: ReserveRequest,
    ) -> Result<v1::Reservation, AgentError> {
        let ReserveRequest { order, units, .. } = request;
        if !(1..=UNITS_MAX).contains(&units) {
            let message = format!("1 to {UNITS_MAX} units can be reserved; got {units}");
            return Err(AgentError::invalid("UNITS_INVALID", message));
        }
        // The grid runs each message once; this is for whoever asks twice in two messages, and for a
        // request that comes after its order has let go.
        match reservation(ctx, &order).await? {
            Some(known) if known.state == State::Held && known.units == units => return Ok(known.shown()),
            Some(_) => return Err(closed(&order)),
            None => {}
        }
        let Some(mut stock) = stock(ctx).await? else {
            return Err(AgentError::refused("PRODUCT_UNKNOWN", "there never was such a product"));
        };
        if units > stock.left {
            return Err(AgentError::refused("STOCK_SHORT", "there is not enough in stock")
                .with("left", stock.left)
                .with("wanted", units));
        }
        stock.left -= units;
        stock.held += units;
        let reservation = Reservation { state: State::Held, units, cents: units * stock.unit_cents };
        store(ctx, &order, &stock, &reservation).await?;
        Ok(reservation.shown())
    }

    async fn release(
        &self,
        ctx: &mut Context,
        request: ReleaseRequest,
    ) -> Result<v1::Reservation, AgentError> {
        let mut stock = stock(ctx).await?.unwrap_or_default();
        let mut reservation = match reservation(ctx, &request.order).await? {
            Some(known) if known.state == State::Released => return Ok(known.shown()),
            Some(known) if known.state == State::Sold => {
                return Err(AgentError::refused("RESERVATION_SOLD", "what was sold can't be released"));
            }
            Some(known) => known,
            // It never came, or is still to come: then it finds this one, and is refused.
            None => Reservation { state: State::Released, units: 0, cents: 0 },
        };
        stock.held -= reservation.units;
        stock.left += reservation.units;
        reservation.state = State::Released;
        store(ctx, &request.order, &stock, &reservation).await?;
        Ok(reservation.shown())
    }

    async fn sell(&self, ctx: &mut Context, request: SellRequest) -> Result<v1::Reservation, AgentError> {
        let mut stock = stock(ctx).await?.unwrap_or_default();
        let mut reservation = match reservation(ctx, &request.order).await? {
            Some(known) if known.state == State::Sold => return Ok(known.shown()),
            Some(known) if known.state == State::Held => known,
            _ => return Err(closed(&request.order)),
        };
        stock.held -= reservation.units;
        stock.sold += reservation.units;
        reservation.state = State::Sold;
        store(ctx, &request.order, &stock, &reservation).await?;
        Ok(reservation.shown())
    }

    async fn get_stock(&self, ctx: &mut Context, _: GetStockRequest) -> Result<v1::Stock, AgentError> {
        Ok(shown(&stock(ctx).await?.unwrap_or_default()))
    }
}

impl Reservation {
    fn shown(&self) -> v1::Reservation {
        v1::Reservation { units: self.units, cents: self.cents }
    }
}

fn shown(stock: &Stock) -> v1::Stock {
    let Stock { left, held, sold, unit_cents } = *stock;
    v1::Stock { left, held, sold, unit_cents }
}

fn closed(order: &str) -> AgentError {
    AgentError::refused("RESERVATION_CLOSED", format!("nothing is held as the order {order} expects it"))
}

async fn stock(ctx: &mut Context) -> Result<Option<Stock>, AgentError> {
    ctx.entity(STOCK).value().await
}

async fn reservation(ctx: &mut Context, order: &str) -> Result<Option<Reservation>, AgentError> {
    ctx.entity(&entity_of(order)).value().await
}

/// Both, or neither: they are one turn's effects.
async fn store(
    ctx: &mut Context,
    order: &str,
    stock: &Stock,
    reservation: &Reservation,
) -> Result<(), AgentError> {
    ctx.entity(STOCK).set_value(stock).await?;
    ctx.entity(&entity_of(order)).set_value(reservation).await
}
