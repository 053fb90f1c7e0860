//! Every decoder of bytes from a client, a peer or the disk, by name: for property tests
//! (`tests/tests/decoders.rs`) and the fuzzer (`tests/fuzz`). The bodies stand beside the decoders, behind
//! their crates' feature `fuzzing`.

/// Its name, what must hold whatever the bytes, and bytes that it takes.
pub type Decoder = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub fn all() -> Vec<Decoder> {
    let mut all: Vec<Decoder> = afdg_replication::decoders::ALL.to_vec();
    let (region, catalog) = (afdg_region_machine::decoders::command, afdg_catalog_machine::decoders::command);
    all.push(("region_command", region, afdg_region_machine::decoders::commands));
    all.push(("entity_key", afdg_region_machine::decoders::entity_key, none));
    all.push(("catalog_command", catalog, none));
    all.push((
        "key_in_request",
        afdg_extension::decoders::key_in_request,
        afdg_extension::decoders::requests,
    ));
    all.push(("agent_row", agent_row, agent_rows));
    all.push(("message_id", message_id, none));
    all.push(("agent_ref", agent_ref, none));
    all.push(("status", status, none));
    all
}

fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

fn agent_row(data: &[u8]) {
    use afdg_agent::row::Row;
    if let Ok(row) = Row::decode(data) {
        let bytes = row.encode();
        assert_eq!(bytes.len(), row.encoded_bytes());
        assert_eq!(Row::decode(&bytes), Ok(row));
    }
}

fn agent_rows() -> Vec<Vec<u8>> {
    use afdg_agent::row::{Page, Row};
    let page = Row::Page(Page { items: vec!["one".into(), "".into(), "three".into()] });
    vec![page.encode().to_vec(), vec![1, 0, 3, 7, 2, 1, b'a', 2, b'b', b'c']]
}

fn message_id(data: &[u8]) {
    use afdg_types::MessageId;
    if let Ok(id) = MessageId::from_bytes(data) {
        assert_eq!(id.as_bytes().as_slice(), data);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(text) = str::from_utf8(data) {
        let _ = text.parse::<MessageId>();
    }
}

fn agent_ref(data: &[u8]) {
    use afdg_types::{AgentRef, Slot};
    if let Some(agent) = str::from_utf8(data).ok().and_then(|text| text.parse::<AgentRef>().ok()) {
        assert_eq!(agent.as_str().as_bytes(), data);
        assert!(Slot::of(&agent).0 < 16_384);
    }
}

/// A status's details come from whoever answers.
fn status(data: &[u8]) {
    let details = bytes::Bytes::copy_from_slice(data);
    let status = tonic::Status::with_details(tonic::Code::Unavailable, "told", details);
    let _ = afdg_proto::status::to_call_error(&status);
}
