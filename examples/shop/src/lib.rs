//! Example agent: a customer with a purchase history.
