//! Purchases that follow from a seed, of the shape of a real shop's: most customers buy once or twice,
//! a few very often; amounts have 0 to 2 decimals, and some are 0.

use super::purchases::{COLUMNS, ROWS_MAX};
use crate::{failure::usage, random::SplitMix};
use std::fmt::Write;

/// First day of the purchases, and how many days follow.
const FIRST_YEAR: u32 = 2017;
const DAYS: u64 = 545;
const MONTH_DAYS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// CSV with `purchases` rows of `customers` customers, each of whom has at least one; sorted by customer
/// and date, as the shop's own file is.
pub fn csv(customers: u32, purchases: u32, seed: u64) -> anyhow::Result<String> {
    if customers == 0 || purchases < customers || purchases > ROWS_MAX {
        return usage(format!(
            "--purchases {purchases} does not fit --customers {customers}: each customer has at least one, \
             and there are at most {ROWS_MAX}"
        ));
    }
    let mut random = SplitMix::new(seed);
    let mut counts = vec![1u32; customers as usize];
    for _ in customers..purchases {
        // The least of three draws: low numbers buy far more often.
        let place = (0..3).map(|_| random.below(u64::from(customers))).min().unwrap_or(0);
        counts[place as usize] += 1;
    }
    let mut text = format!("{}\n", COLUMNS.join(","));
    for (place, count) in counts.into_iter().enumerate() {
        let mut days: Vec<u64> = (0..count).map(|_| random.below(DAYS)).collect();
        days.sort_unstable();
        for day in days {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{},{},{}", place + 1, date(day), amount(&mut random));
        }
    }
    Ok(text)
}

/// The day that is `day` days after the first of January of the first year, YYYYMMDD.
fn date(day: u64) -> u32 {
    let mut year = FIRST_YEAR;
    let mut rest = day as u32;
    // No leap year is among them.
    while rest >= 365 {
        rest -= 365;
        year += 1;
    }
    for (month, days) in (1..).zip(MONTH_DAYS) {
        if rest < days {
            return year * 10_000 + month * 100 + rest + 1;
        }
        rest -= days;
    }
    year * 10_000 + 1_231
}

fn amount(random: &mut SplitMix) -> String {
    let whole = 5 + random.below(30) + random.below(40) * random.below(3);
    match random.below(1_000) {
        0 => "0".to_owned(),
        1..50 => format!("{whole}"),
        50..150 => format!("{whole}.{}", random.below(10)),
        _ => format!("{whole}.{:02}", random.below(100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::purchases::read;

    #[test]
    fn the_same_seed_gives_the_same_rows_for_ever() {
        let text = csv(2_000, 6_000, 1).unwrap();
        assert_eq!(text, csv(2_000, 6_000, 1).unwrap());
        assert_ne!(text, csv(2_000, 6_000, 2).unwrap());
        let first: Vec<_> = text.lines().take(4).collect();
        assert_eq!(first[0], "ID,Date,Amount");
    }

    #[test]
    fn rows_have_the_shape_of_the_shops_file() {
        let purchases = read("made up", csv(2_000, 6_000, 7).unwrap().as_bytes()).unwrap();
        assert_eq!((purchases.rows, purchases.customers.len()), (6_000, 2_000));
        let in_order = |customer: &crate::demo::purchases::Customer| {
            customer.purchases.windows(2).all(|pair| pair[0].date <= pair[1].date)
        };
        assert!(purchases.customers.iter().all(in_order));
        let most = purchases.customers.iter().map(|customer| customer.purchases.len()).max();
        assert!(most > Some(8), "{most:?}");
        let zero = purchases.customers.iter().flat_map(|one| &one.purchases).filter(|one| one.amount.0 == 0);
        assert!(zero.count() > 0);
    }

    #[test]
    fn days_follow_the_calendar() {
        assert_eq!(
            [date(0), date(58), date(59), date(364), date(365)],
            [20170101, 20170228, 20170301, 20171231, 20180101]
        );
        assert_eq!(date(DAYS), 20180630);
    }

    #[test]
    fn too_few_purchases_are_refused() {
        assert!(csv(10, 9, 1).is_err() && csv(0, 0, 1).is_err());
        assert!(csv(1, 1, 1).is_ok());
    }
}
