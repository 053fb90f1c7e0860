use super::*;

fn item(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn rows() -> [(Row, &'static [u8]); 4] {
    let head = |generation, tail_first: u64, tail: Vec<Bytes>| {
        Row::Head(Head { length: tail_first + tail.len() as u64, generation, tail_first, tail })
    };
    [
        (head(0, 0, vec![]), b"\x01\x00\x00\x00\x00"),
        (head(0, 0, vec![item("one")]), b"\x01\x00\x00\x00\x01\x03one"),
        (head(300, 1_000_000, vec![item(""), item("b")]), b"\x01\x00\xac\x02\xc0\x84\x3d\x02\x00\x01b"),
        (Row::Page(Page { items: vec![item("a"), item("bc")] }), b"\x01\x01\x02\x01a\x02bc"),
    ]
}

#[test]
fn bytes_of_version_1_never_change() {
    for (row, bytes) in rows() {
        assert_eq!(row.encode(), bytes, "{row:?}");
        assert_eq!(Row::decode(bytes), Ok(row));
    }
}

#[test]
fn rows_read_back_and_know_their_size() {
    let tail = |count: usize, bytes: usize| vec![Bytes::from(vec![7; bytes]); count];
    for (count, bytes) in [(0, 0), (1, 127), (1, 128), (16, 300), (200, 1), (1, 1 << 21)] {
        let items = tail(count, bytes);
        let head = Head { length: u64::MAX, generation: u32::MAX, tail_first: 0, tail: items.clone() };
        let head = Head { tail_first: u64::MAX - count as u64, ..head };
        for row in [Row::Head(head), Row::Page(Page { items })] {
            let encoded = row.encode();
            assert_eq!(encoded.len(), row.encoded_bytes());
            assert!(row.size_bytes() >= count * bytes);
            assert_eq!(Row::decode(&encoded), Ok(row));
        }
    }
}

#[test]
fn cut_and_changed_bytes_never_panic() {
    for (_, bytes) in rows() {
        for end in 0..bytes.len() {
            assert!(Row::decode(&bytes[..end]).is_err(), "{:?}", &bytes[..end]);
        }
        for at in 0..bytes.len() {
            for change in 1..=u8::MAX {
                let mut changed = bytes.to_vec();
                changed[at] ^= change;
                let _ = Row::decode(&changed);
            }
        }
        let longer = [bytes, b"\0"].concat();
        assert_eq!(Row::decode(&longer), Err(RowError::Trailing { bytes: 1 }));
    }
}

#[test]
fn made_up_lengths_are_refused_before_anything_is_allocated() {
    let past = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let count = [&[1, 1][..], &past].concat();
    assert_eq!(Row::decode(&count), Err(RowError::Short { at: 12 }));
    let length = [&[1, 1, 1][..], &past].concat();
    assert_eq!(Row::decode(&length), Err(RowError::Short { at: 13 }));
    let too_wide = [&[1, 1][..], &[0xff; 9], &[0x02]].concat();
    assert_eq!(Row::decode(&too_wide), Err(RowError::Number { at: 2 }));
    let generation = [1, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0];
    assert_eq!(Row::decode(&generation), Err(RowError::Generation { generation: 1 << 32 }));
    let length = [&[1, 0, 0][..], &past, &[1, 0]].concat();
    assert_eq!(Row::decode(&length), Err(RowError::Length));
    assert_eq!(Row::decode(&[2, 0]), Err(RowError::Version { version: 2 }));
    assert_eq!(Row::decode(&[1, 9]), Err(RowError::Kind { kind: 9 }));
}

#[test]
fn keys_never_change_and_read_back() {
    let entity = EntityKey::new("ab").unwrap();
    let head = head_key(entity);
    let page = page_key(entity, 1, 258);
    assert_eq!(head, &b"\x02ab\x00"[..]);
    assert_eq!(page, &b"\x02ab\x01\0\0\0\x01\0\0\0\0\0\0\x01\x02"[..]);
    assert_eq!(RowKey::parse(&head), Ok(RowKey::Head { entity }));
    assert_eq!(RowKey::parse(&page), Ok(RowKey::Page { entity, generation: 1, first: 258 }));
    assert!(page.starts_with(&page_prefix(entity, 1)));
    assert!(!page.starts_with(&page_prefix(entity, 2)));
    for end in 0..page.len() {
        assert!(end == head.len() || RowKey::parse(&page[..end]).is_err());
    }
    for bad in [&b"\0\0"[..], b"\x01\xff\0", b"\x01a\x02", b"\x01a\0\0", b"\xff"] {
        assert_eq!(RowKey::parse(bad), Err(RowError::Key), "{bad:?}");
    }
}

#[test]
fn an_entitys_rows_lie_together_in_the_order_of_their_items() {
    let (ab, b, longest) = ("ab", "b", "ü".repeat(127));
    let [ab, b, longest] = [ab, b, &longest].map(|key| EntityKey::new(key).unwrap());
    let keys = [
        head_key(b),
        page_key(b, 0, u64::MAX),
        entity_end(b),
        head_key(ab),
        page_key(ab, 0, 1),
        page_key(ab, 0, 256),
        page_key(ab, 1, 0),
        entity_end(ab),
        head_key(longest),
        Bytes::from_static(&ROWS_END),
    ];
    assert!(keys.is_sorted());
    assert!(EntityKey::new("").is_err());
    assert!(EntityKey::new(&"k".repeat(255)).is_ok());
    assert_eq!(EntityKey::new(&"k".repeat(256)), Err(EntityKeyError { bytes: 256 }));
}

#[test]
fn pages_close_when_they_are_full() {
    let sizes = |items: &[usize]| {
        let items = items.iter().map(|bytes| Bytes::from(vec![0; *bytes])).collect();
        paginate(items).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[]), Vec::<usize>::new());
    assert_eq!(sizes(&[1; 16]), [16]);
    assert_eq!(sizes(&[1; 33]), [16, 16, 1]);
    assert_eq!(sizes(&[4095, 1, 1]), [2, 1]);
    assert_eq!(sizes(&[5000, 1, 5000, 5000]), [1, 2, 1]);
}
