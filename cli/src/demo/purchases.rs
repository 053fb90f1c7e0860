//! Purchases from CSV: columns `ID,Date,Amount`, one row a purchase, a customer's rows in order.
//!
//! The whole file is read and checked before anything is sent; every bad row is told with its line.

use super::money::Cents;
use crate::failure::usage;
use afdg_types::AgentRef;
use std::{collections::HashMap, fmt, io::Read};

/// The agent type that purchases are recorded with.
pub const CUSTOMER: &str = "shop.v1.Customer";
/// The columns, in order.
pub const COLUMNS: [&str; 3] = ["ID", "Date", "Amount"];
/// Rows in one file: they are all held in memory.
pub const ROWS_MAX: u32 = 20_000_000;
/// Bad rows that are told one by one.
const TOLD_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Number of the row, from 1, the header not counted.
    pub row: u32,
    pub date: Date,
    pub amount: Cents,
}

/// A day: `20170131`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub u32);

impl Date {
    /// Reads YYYYMMDD, a day that exists.
    pub fn parse(text: &str) -> Option<Date> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number: u32 = text.parse().ok()?;
        let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        (year > 0 && (1..=days).contains(&day)).then_some(Date(number))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}

/// A date, or the lack of one.
pub fn shown(date: Option<Date>) -> String {
    date.map_or("none".to_owned(), |date| date.to_string())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub id: String,
    /// In the order of the rows; never empty.
    pub purchases: Vec<Purchase>,
    pub total: Cents,
}

/// All purchases, customer by customer in the order of their first rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purchases {
    pub customers: Vec<Customer>,
    pub rows: u32,
    pub total: Cents,
}

/// Reads `from`, which is called `name` in errors.
pub fn read(name: &str, from: impl Read) -> anyhow::Result<Purchases> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(from);
    let mut table = Table::default();
    let mut problems = Problems { name, told: Vec::new(), count: 0 };
    let mut record = csv::ByteRecord::new();
    let mut header = true;
    loop {
        let line = reader.position().line();
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => return usage(format!("{name}:{line}: the file can't be read: {error}")),
        }
        let line = record.position().map_or(line, csv::Position::line);
        if header {
            if !record.iter().eq(COLUMNS.iter().map(|column| column.as_bytes())) {
                let fields =
                    record.iter().map(|field| String::from_utf8_lossy(field).escape_debug().to_string());
                let got = fields.collect::<Vec<_>>().join(",");
                return usage(format!(
                    "{name}:{line}: the first line has to be {}; got {got}",
                    COLUMNS.join(",")
                ));
            }
            header = false;
        } else if let Err(why) = row(&record).and_then(|row| table.add(row)) {
            problems.add(line, why);
        }
    }
    problems.finish()?;
    if table.purchases.rows == 0 {
        return usage(format!("{name}: no purchases; a header {} and rows are wanted", COLUMNS.join(",")));
    }
    Ok(table.purchases)
}

struct Row<'a> {
    id: &'a str,
    date: Date,
    amount: Cents,
}

fn row(record: &csv::ByteRecord) -> Result<Row<'_>, String> {
    let text = |place: usize| {
        let bytes = record.get(place).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| format!("the {} is not UTF-8", COLUMNS[place]))
    };
    if record.len() != COLUMNS.len() {
        return Err(format!("{} columns are wanted, {} are there", COLUMNS.len(), record.len()));
    }
    let (id, date, amount) = (text(0)?, text(1)?, text(2)?);
    AgentRef::new(CUSTOMER, id).map_err(|error| format!("the ID '{}' is no key: {error}", excerpt(id)))?;
    let day =
        Date::parse(date).ok_or_else(|| format!("the Date '{}' is no day; write YYYYMMDD", excerpt(date)))?;
    let cents = amount.parse::<Cents>().map_err(|why| format!("the Amount '{}' {why}", excerpt(amount)))?;
    Ok(Row { id, date: day, amount: cents })
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}

#[derive(Default)]
struct Table {
    places: HashMap<String, usize>,
    purchases: Purchases,
}

impl Table {
    fn add(&mut self, row: Row<'_>) -> Result<(), String> {
        let too_much = || "the sum of all amounts is larger than 64 bits of cents can hold".to_owned();
        if self.purchases.rows >= ROWS_MAX {
            return Err(format!("the file has more than {ROWS_MAX} rows"));
        }
        // The sum of all bounds that of each.
        self.purchases.total = self.purchases.total.plus(row.amount).ok_or_else(too_much)?;
        self.purchases.rows += 1;
        let customers = &mut self.purchases.customers;
        let place = match self.places.get(row.id) {
            Some(place) => *place,
            None => {
                self.places.insert(row.id.to_owned(), customers.len());
                customers.push(Customer {
                    id: row.id.to_owned(),
                    purchases: Vec::new(),
                    total: Cents::default(),
                });
                customers.len() - 1
            }
        };
        let customer = &mut customers[place];
        customer.total = customer.total.plus(row.amount).ok_or_else(too_much)?;
        let number = self.purchases.rows;
        customer.purchases.push(Purchase { row: number, date: row.date, amount: row.amount });
        Ok(())
    }
}

struct Problems<'a> {
    name: &'a str,
    told: Vec<String>,
    count: u64,
}

impl Problems<'_> {
    fn add(&mut self, line: u64, why: String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("{}:{line}: {why}", self.name));
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let more = match self.count - self.told.len() as u64 {
            0 => String::new(),
            more => format!("\nand {more} more"),
        };
        let rows = if self.count == 1 { "1 row is".to_owned() } else { format!("{} rows are", self.count) };
        usage(format!("{rows} wrong; nothing was sent\n{}{more}", self.told.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> String {
        read("p.csv", text).unwrap_err().to_string()
    }

    #[test]
    fn rows_are_gathered_by_customer_in_order() {
        let read =
            read("p.csv", &b"ID,Date,Amount\r\n7,20170101,12\n8,20170102,0\n7,20161231,0.5\n"[..]).unwrap();
        assert_eq!((read.rows, read.total), (3, Cents(1_250)));
        let ids: Vec<_> = read.customers.iter().map(|customer| customer.id.as_str()).collect();
        assert_eq!(ids, ["7", "8"]);
        let rows: Vec<_> = read.customers[0].purchases.iter().map(|one| (one.row, one.date.0)).collect();
        assert_eq!(rows, [(1, 20_170_101), (3, 20_161_231)]);
        assert_eq!(read.customers[0].total, Cents(1_250));
    }

    #[test]
    fn every_bad_row_is_told_with_its_line() {
        for (row, why) in [
            ("1,20170101", "p.csv:3: 3 columns are wanted, 2 are there"),
            ("1,20170101,1,1", "p.csv:3: 3 columns are wanted, 4 are there"),
            ("1,20170229,1", "p.csv:3: the Date '20170229' is no day"),
            ("1,2017-01-01,1", "p.csv:3: the Date '2017-01-01' is no day"),
            ("1,20171301,1", "is no day"),
            ("1,00000101,1", "is no day"),
            (",20170101,1", "p.csv:3: the ID '' is no key"),
            ("a\tb,20170101,1", "p.csv:3: the ID 'a\\tb' is no key"),
            ("1,20170101,-1", "p.csv:3: the Amount '-1' is negative"),
            ("1,20170101,1.234", "has more than two decimals"),
            ("1,20170101,x", "is no amount"),
            ("1,20170101,99999999999999999999", "is larger than"),
            ("1,20170101,92233720368547758.07", "the sum of all amounts is larger"),
        ] {
            let text = format!("ID,Date,Amount\n1,20170101,1\n{row}\n2,20170101,1\n");
            let refusal = refusal(text.as_bytes());
            assert!(refusal.contains("1 row is wrong; nothing was sent"), "{row}: {refusal}");
            assert!(refusal.contains(why), "{row}: {refusal}");
        }
        assert!(refusal(b"ID,Date,Amount\n\xff,20170101,1\n").contains("p.csv:2: the ID is not UTF-8"));
    }

    #[test]
    fn many_bad_rows_are_counted_and_the_first_told() {
        let text = format!("ID,Date,Amount\n{}", "1,20170101,x\n".repeat(25));
        let refusal = refusal(text.as_bytes());
        assert!(refusal.starts_with("25 rows are wrong") && refusal.ends_with("and 15 more"), "{refusal}");
    }

    #[test]
    fn a_file_without_header_or_rows_is_refused() {
        assert!(refusal(b"1,20170101,1\n").contains("the first line has to be ID,Date,Amount"));
        assert!(refusal(b"").contains("no purchases"));
        assert!(refusal(b"ID,Date,Amount\n").contains("no purchases"));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert!(Date::parse("20000229").is_some() && Date::parse("19000229").is_none());
        assert_eq!(Date::parse("20180630").unwrap().to_string(), "2018-06-30");
    }

    #[test]
    fn the_figures_of_the_shops_own_file_come_out_exactly() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/cdnow.csv");
        let Ok(opened) = std::fs::File::open(file) else {
            eprintln!("skipped: {file} is not there");
            return;
        };
        let all = read("cdnow.csv", opened).unwrap();
        assert_eq!((all.rows, all.customers.len(), all.total), (69_659, 23_544, Cents(250_031_563)));
        let purchases = || all.customers.iter().flat_map(|customer| &customer.purchases);
        assert_eq!(purchases().filter(|one| one.amount == Cents(0)).count(), 80);
        let dates = || purchases().map(|one| one.date.0);
        assert_eq!((dates().min(), dates().max()), (Some(20_170_101), Some(20_180_630)));
        let customer = |id: &str| {
            let found = all.customers.iter().find(|customer| customer.id == id).unwrap();
            (found.purchases.len(), found.total.0)
        };
        assert_eq!([customer("7592"), customer("14048")], [(201, 1_399_093), (217, 897_633)]);
    }
}
