//! Scripts of commands with the outcome of each beside it.
//!
//! After every command the state is read again from its rows and compared, and (in the machine itself,
//! in debug builds) all invariants are checked.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use afdg_catalog_machine::{
    AdminAction, AgentType, CatalogMachine, Command, FormCluster, Method, NodeState, Outcome, PlaceRegions,
    RecordAction, RegionReady, RegisterNode, SetNodeState, SetTypeLimits, limits,
};
use afdg_types::{ClusterId, NodeId, RegionId, Slot, TypeLimit};
use bytes::Bytes;
use std::collections::BTreeMap;

const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct Script {
    machine: CatalogMachine,
    rows: BTreeMap<Bytes, Bytes>,
    index: u64,
}

impl Script {
    fn formed(regions: u16, replicas: u8) -> Self {
        let mut script = Self::default();
        assert_eq!(script.run(form(CLUSTER, regions, replicas)), format!("formed {CLUSTER}"));
        script
    }

    fn run(&mut self, command: Command) -> String {
        self.run_bytes(&command.encode().unwrap())
    }

    fn run_bytes(&mut self, command: &[u8]) -> String {
        self.index += 1;
        let before = self.machine.state().clone();
        let outcome = self.machine.apply(self.index, command, &mut self.rows).unwrap();
        let mut restored = CatalogMachine::new();
        restored.restore(&self.rows).unwrap();
        assert_eq!(restored.state(), self.machine.state(), "the rows hold another state");
        self.machine.state().validate_after(&before).unwrap();
        if let Outcome::Refused(_) = outcome {
            assert_eq!(&before, self.machine.state(), "a refusal changed something");
        }
        render(outcome)
    }

    fn nodes(&self) -> String {
        let nodes = self.machine.state().nodes.iter().map(|(id, node)| {
            let replaced = node.replaced_by.map(|by| format!(" replaced by {by}")).unwrap_or_default();
            format!("{id}:{} {} {}{replaced}", node.name, node.address, node.state)
        });
        nodes.collect::<Vec<_>>().join(", ")
    }

    fn epoch(&self) -> u64 {
        self.machine.state().epoch.0
    }
}

fn render(outcome: Outcome) -> String {
    use afdg_catalog_machine::Reply;
    match outcome {
        Outcome::Done(Reply::Formed { cluster }) => format!("formed {cluster}"),
        Outcome::Done(Reply::Registered { node, .. }) => format!("registered as {node}"),
        Outcome::Done(Reply::NodeStateSet { node, state }) => format!("{node} is {state}"),
        Outcome::Done(Reply::Placed { regions, replicas }) => format!("placed {regions} x {replicas}"),
        Outcome::Done(Reply::RegionReady { region }) => format!("{region} is ready"),
        Outcome::Done(Reply::Recorded { index }) => format!("recorded at {index}"),
        Outcome::Refused(refusal) => format!("REFUSED {refusal}"),
    }
}

fn form(cluster: &str, regions: u16, replicas: u8) -> Command {
    Command::FormCluster(FormCluster { cluster: ClusterId(cluster.to_owned()), regions, replicas, at_ms: 1 })
}

fn node(name: &str, incarnation: &str) -> RegisterNode {
    RegisterNode {
        cluster: None,
        node: None,
        name: name.to_owned(),
        incarnation: incarnation.to_owned(),
        address: format!("{name}:7000"),
        zone: format!("zone-{name}"),
        types: Vec::new(),
        at_ms: 2,
    }
}

fn register(name: &str, incarnation: &str) -> Command {
    Command::RegisterNode(node(name, incarnation))
}

fn agent_type(name: &str, descriptors: &[u8]) -> AgentType {
    let method = |name: &str| Method {
        name: name.to_owned(),
        read_only: false,
        key_field: 1,
        request: "Q".to_owned(),
        response: "R".to_owned(),
    };
    AgentType {
        name: name.to_owned(),
        version: format!("{:02x}", descriptors.len()),
        descriptors: Bytes::copy_from_slice(descriptors),
        methods: vec![method("Deposit"), method("Withdraw")],
    }
}

fn set(node: u64, from: NodeState, to: NodeState) -> Command {
    Command::SetNodeState(SetNodeState { node: NodeId(node), from, to, at_ms: 3 })
}

fn place(nodes_min: u32) -> Command {
    Command::PlaceRegions(PlaceRegions { nodes_min, at_ms: 4 })
}

fn ready(region: u64) -> Command {
    Command::RegionReady(RegionReady { region: RegionId(region), at_ms: 5 })
}

fn transfer(actor: &str, reason: &str, region: u64, to: u64) -> Command {
    Command::RecordAction(RecordAction {
        actor: actor.to_owned(),
        reason: reason.to_owned(),
        action: AdminAction::TransferLeader { region: RegionId(region), to: NodeId(to) },
        at_ms: 6,
    })
}

#[test]
fn a_cluster_is_formed_once_and_becomes_ready() {
    let mut s = Script::default();
    assert_eq!(s.run(register("a", "ia")), "REFUSED the cluster is not formed yet; try again in a moment");
    assert_eq!(s.run(place(1)), "REFUSED the cluster is not formed yet; try again in a moment");
    assert_eq!(s.run(form("short", 2, 3)), "REFUSED cluster must be 32 hexadecimal digits");
    assert_eq!(s.run(form(CLUSTER, 0, 3)), "REFUSED regions must be 1 to 4096; got 0");
    assert_eq!(s.run(form(CLUSTER, 2, 2)), "REFUSED replicas must be 1, 3 or 5; got 2");
    assert_eq!(s.run(form(CLUSTER, 2, 3)), format!("formed {CLUSTER}"));
    assert_eq!(
        s.run(form(&CLUSTER.replace('0', "f"), 2, 3)),
        format!("REFUSED the cluster is formed already; its id is {CLUSTER}")
    );
    assert_eq!(s.run(register("a", "ia")), "registered as 1");
    assert_eq!(s.run(register("b", "ib")), "registered as 2");
    assert_eq!(s.run(place(3)), "REFUSED regions are placed when 3 nodes are live; 2 are");
    assert_eq!(s.run(ready(1)), "REFUSED the catalog knows no region 1");
    assert_eq!(s.run(register("c", "ic")), "registered as 3");
    assert!(!s.machine.state().is_placed());
    assert_eq!(s.run(place(3)), "placed 2 x 3");
    assert_eq!(s.run(place(3)), "REFUSED the regions are placed already");
    let replicas: Vec<_> = s.machine.state().regions.values().map(|r| r.replicas.clone()).collect();
    assert_eq!(replicas, [[1, 2, 3].map(NodeId), [2, 3, 1].map(NodeId)]);
    assert_eq!(s.machine.state().region_of(Slot(0)), Some(RegionId(1)));
    assert_eq!(s.machine.state().region_of(Slot(16_383)), Some(RegionId(2)));
    assert_eq!(s.run(ready(1)), "1 is ready");
    assert!(!s.machine.state().is_ready());
    assert_eq!(s.run(ready(2)), "2 is ready");
    assert!(s.machine.state().is_ready());
    let epoch = s.epoch();
    assert_eq!(s.run(ready(2)), "2 is ready");
    assert_eq!(s.epoch(), epoch, "nothing changed");
}

#[test]
fn fewer_nodes_than_replicas_hold_what_they_can() {
    let mut s = Script::formed(4, 3);
    s.run(register("a", "ia"));
    assert_eq!(s.run(place(1)), "placed 4 x 1");
}

#[test]
fn a_node_is_its_data() {
    let mut s = Script::formed(2, 1);
    assert_eq!(s.run(register("a", "ia")), "registered as 1");
    assert_eq!(s.run(register("b", "ib")), "registered as 2");
    let again = RegisterNode {
        cluster: Some(ClusterId(CLUSTER.to_owned())),
        node: Some(NodeId(1)),
        address: "elsewhere:1".to_owned(),
        ..node("a", "ia")
    };
    assert_eq!(s.run(Command::RegisterNode(again.clone())), "registered as 1");
    assert_eq!(s.nodes(), "1:a elsewhere:1 live, 2:b b:7000 live");

    let other_cluster = RegisterNode { cluster: Some(ClusterId("other".to_owned())), ..again.clone() };
    assert_eq!(
        s.run(Command::RegisterNode(other_cluster)),
        format!("REFUSED the data is of cluster other, and this is cluster {CLUSTER}")
    );
    let other_name = RegisterNode { name: "b".to_owned(), ..again.clone() };
    let of_another = "REFUSED the data is of node 1, whose name is 'a', and it was given as that of";
    assert_eq!(
        s.run(Command::RegisterNode(other_name)),
        format!("{of_another} 'b'; start it under its own name, or give 'b' an empty data folder")
    );
    let other_id = RegisterNode { node: Some(NodeId(2)), ..again.clone() };
    assert!(s.run(Command::RegisterNode(other_id)).starts_with(of_another));
    let unknown = RegisterNode { incarnation: "ix".to_owned(), ..again };
    assert_eq!(
        s.run(Command::RegisterNode(unknown)),
        "REFUSED the data says it is of node 1, and the catalog knows no such data; start with an empty data folder to join as a new node"
    );
}

#[test]
fn a_node_without_its_disk_is_another_node() {
    let mut s = Script::formed(2, 1);
    s.run(register("a", "ia"));
    s.run(register("b", "ib"));
    assert_eq!(s.run(place(2)), "placed 2 x 1");
    assert_eq!(
        s.run(register("a", "ia-2")),
        "REFUSED the name 'a' is that of node 1, which is live at a:7000: give this node a name of its own. If that node has lost its disk, wait until it is no longer live"
    );
    assert_eq!(s.nodes(), "1:a a:7000 live, 2:b b:7000 live");
    s.run(set(1, NodeState::Live, NodeState::Suspect));
    assert_eq!(s.run(register("a", "ia-2")), "registered as 3");
    assert_eq!(s.nodes(), "1:a a:7000 dead replaced by 3, 2:b b:7000 live, 3:a a:7000 live");
    assert_eq!(
        s.machine.state().regions[&RegionId(1)].replicas,
        [NodeId(1)],
        "the replicas of the lost disk stay listed"
    );
    assert_eq!(
        s.run(set(1, NodeState::Dead, NodeState::Live)),
        "REFUSED node 1 was replaced by node 3, which registered under the same name with another disk"
    );
    s.run(set(3, NodeState::Live, NodeState::Suspect));
    assert_eq!(s.run(register("a", "ia-3")), "registered as 4");
    assert_eq!(
        s.nodes(),
        "1:a a:7000 dead replaced by 4, 2:b b:7000 live, 3:a a:7000 dead replaced by 4, 4:a a:7000 live"
    );
    let back = RegisterNode { node: Some(NodeId(1)), ..node("a", "ia") };
    assert_eq!(s.run(Command::RegisterNode(back)), "registered as 1");
    assert_eq!(
        s.nodes(),
        "1:a a:7000 live, 2:b b:7000 live, 3:a a:7000 dead replaced by 1, 4:a a:7000 dead replaced by 1"
    );
}

#[test]
fn a_node_changes_its_state_only_from_the_state_that_was_seen() {
    use NodeState::{Dead, Live, Suspect};
    let mut s = Script::formed(2, 1);
    assert_eq!(s.run(set(1, Live, Suspect)), "REFUSED the catalog knows no node 1");
    s.run(register("a", "ia"));
    let epoch = s.epoch();
    assert_eq!(s.run(set(1, Live, Suspect)), "1 is suspect");
    assert_eq!(s.epoch(), epoch + 1);
    assert_eq!(s.machine.state().nodes[&NodeId(1)].changed_ms, 3);
    assert_eq!(s.run(set(1, Live, Suspect)), "REFUSED node 1 is suspect, not live");
    assert_eq!(s.run(set(1, Suspect, Dead)), "1 is dead");
    assert_eq!(s.run(place(1)), "REFUSED regions are placed when 1 nodes are live; 0 are");
    assert_eq!(s.run(set(1, Dead, Live)), "1 is live");
    assert_eq!(s.run(place(1)), "placed 2 x 1");
    s.run(set(1, Live, Suspect));
    assert_eq!(s.run(register("a", "ia")), "registered as 1");
    assert_eq!(s.nodes(), "1:a a:7000 live");
    assert_eq!(s.run(set(1, Suspect, Dead)), "REFUSED node 1 is live, not suspect");
}

#[test]
fn the_latest_registration_says_what_a_type_is() {
    let mut s = Script::formed(2, 1);
    let with = |name: &str, types: Vec<AgentType>| {
        Command::RegisterNode(RegisterNode { types, ..node(name, &format!("i{name}")) })
    };
    assert_eq!(s.run(with("a", vec![agent_type("bank.v1.Account", b"one")])), "registered as 1");
    let first = s.machine.state().types_epoch;
    assert_eq!(first, s.machine.state().epoch);
    assert_eq!(s.run(with("b", vec![agent_type("bank.v1.Account", b"one")])), "registered as 2");
    assert_eq!(s.machine.state().types_epoch, first, "the same type again is no change");
    assert_eq!(s.run(with("b", vec![agent_type("bank.v1.Account", b"second")])), "registered as 2");
    assert!(s.machine.state().types_epoch > first);
    assert_eq!(s.machine.state().types["bank.v1.Account"].version, "06");
    assert_eq!(s.run(with("b", vec![])), "registered as 2");
    assert_eq!(s.machine.state().types.len(), 1, "a type stays known without a node that hosts it");

    let mut twice = agent_type("a.B", b"");
    twice.methods.push(twice.methods[0].clone());
    assert_eq!(
        s.run(with("c", vec![twice])),
        "REFUSED the agent type 'a.B' has a method without a name, or two of one name"
    );
    assert_eq!(
        s.run(with("c", vec![agent_type("a.B", b""), agent_type("a.B", b"")])),
        "REFUSED the agent type 'a.B' is given twice"
    );
    assert_eq!(
        s.run(with("c", vec![agent_type("a b", b"")])),
        "REFUSED the agent type 'a b' has no usable name: an agent type is a protobuf service's full name such as bank.v1.Account; got 'a b'"
    );
    let large = agent_type("a.B", &vec![0; limits::TYPE_BYTES_MAX]);
    assert!(s.run(with("c", vec![large])).contains("at most 1048576 are allowed"));
    let many = (0..9).map(|n| agent_type(&format!("a.B{n}"), &vec![0; limits::TYPE_BYTES_MAX - 100]));
    assert_eq!(
        s.run(with("c", many.collect())),
        "REFUSED the catalog holds at most 8388608 bytes of agent types"
    );
    let many = (0..=limits::TYPES_MAX).map(|n| agent_type(&format!("a.B{n}"), b"")).collect();
    assert_eq!(s.run(with("c", many)), "REFUSED the catalog holds at most 1000 agent types");
}

#[test]
fn what_nodes_say_of_themselves_is_bounded() {
    let mut s = Script::formed(2, 1);
    let mut run = |change: fn(&mut RegisterNode)| {
        let mut command = node("a", "ia");
        change(&mut command);
        s.run(Command::RegisterNode(command))
    };
    assert_eq!(run(|n| n.name.clear()), "REFUSED name must have 1 to 128 bytes; got 0");
    assert_eq!(run(|n| n.name = "a\nb".into()), "REFUSED name must hold no control characters");
    assert_eq!(run(|n| n.incarnation.clear()), "REFUSED incarnation must have 1 to 128 bytes; got 0");
    assert_eq!(run(|n| n.address = "x".repeat(261)), "REFUSED address must have 1 to 260 bytes; got 261");
    assert_eq!(run(|n| n.zone = "x".repeat(129)), "REFUSED zone must have 0 to 128 bytes; got 129");
    for n in 0..limits::NODES_MAX {
        assert_eq!(s.run(register(&format!("n{n}"), &format!("i{n}"))), format!("registered as {}", n + 1));
    }
    assert_eq!(s.run(register("more", "more")), "REFUSED the catalog holds at most 1000 nodes");
    assert_eq!(s.run(register("n7", "i7")), "registered as 8");
}

#[test]
fn admin_actions_are_recorded_with_who_and_why() {
    let mut s = Script::formed(2, 1);
    s.run(register("a", "ia"));
    s.run(register("b", "ib"));
    s.run(place(2));
    assert_eq!(
        s.run(transfer("", "why", 1, 1)),
        "REFUSED actor is missing: every admin action says who asks for it and why"
    );
    assert_eq!(
        s.run(transfer("ann", " ", 1, 1)),
        "REFUSED reason is missing: every admin action says who asks for it and why"
    );
    assert_eq!(
        s.run(transfer("ann", &"x".repeat(513), 1, 1)),
        "REFUSED reason must have at most 512 bytes; got 513"
    );
    assert_eq!(s.run(transfer("ann", "why", 9, 1)), "REFUSED the catalog knows no region 9");
    assert_eq!(s.run(transfer("ann", "why", 1, 2)), "REFUSED node 2 holds no replica of region 1");
    let epoch = s.epoch();
    assert_eq!(s.run(transfer("ann", "why", 1, 1)), "recorded at 10");
    assert_eq!(s.epoch(), epoch, "a record is no change of the routes");
    let record = s.machine.state().audit.back().unwrap().clone();
    assert_eq!(
        (record.index, record.at_ms, record.actor.as_str(), record.reason.as_str(), record.action.as_str()),
        (10, 6, "ann", "why", "transfer the lead of region 1 to node 1")
    );
}

fn set_limits(agent_type: &str, limits: &[(TypeLimit, Option<u64>)]) -> Command {
    Command::SetTypeLimits(SetTypeLimits {
        actor: "ann".to_owned(),
        reason: "why".to_owned(),
        agent_type: agent_type.to_owned(),
        limits: limits.iter().copied().collect(),
        at_ms: 7,
    })
}

#[test]
fn limits_of_a_type_are_set_and_given_back_with_who_and_why() {
    use TypeLimit::{MailboxMessages, TurnMs};
    let mut s = Script::formed(1, 1);
    let unknown =
        "REFUSED the catalog knows no agent type 'a.B'; a region node that has it has to register first";
    assert_eq!(s.run(set_limits("a.B", &[(TurnMs, Some(5))])), unknown);
    s.run(Command::RegisterNode(RegisterNode { types: vec![agent_type("a.B", b"d")], ..node("a", "ia") }));
    let wrong = "REFUSED limits can't be so: turn_ms_max can be 1 to 60000, not 0";
    assert_eq!(s.run(set_limits("a.B", &[(MailboxMessages, Some(5)), (TurnMs, Some(0))])), wrong);
    assert_eq!(s.run(set_limits("a.B", &[])), "REFUSED limits are missing");
    let before = (s.epoch(), s.machine.state().types_epoch);
    let two = [(MailboxMessages, Some(5)), (TurnMs, Some(6))];
    assert_eq!(s.run(set_limits("a.B", &two)), "recorded at 6");
    assert!((s.epoch(), s.machine.state().types_epoch) > before, "watchers hear of it");
    assert_eq!(s.machine.state().limits["a.B"], [(MailboxMessages, 5), (TurnMs, 6)].into());
    let record = s.machine.state().audit.back().unwrap().action.clone();
    assert_eq!(record, "set limits of a.B: mailbox_messages_max = 5, turn_ms_max = 6");
    assert_eq!(s.run(set_limits("a.B", &[(TurnMs, None)])), "recorded at 7");
    assert_eq!(s.machine.state().limits["a.B"], [(MailboxMessages, 5)].into());
    // A node that registers again changes nothing of it.
    s.run(Command::RegisterNode(RegisterNode { types: vec![agent_type("a.B", b"e")], ..node("a", "ia") }));
    assert_eq!(s.machine.state().limits["a.B"], [(MailboxMessages, 5)].into());
    let row = s.rows.iter().find(|(key, _)| key.starts_with(b"limits/")).unwrap();
    assert_eq!(
        (row.0.escape_ascii().to_string(), hex(row.1)),
        ("limits/a.B".to_owned(), "0103612e42010005".to_owned())
    );
    assert_eq!(s.run(set_limits("a.B", &[(MailboxMessages, None)])), "recorded at 9");
    assert!(s.machine.state().limits.is_empty());
    assert!(!s.rows.keys().any(|key| key.starts_with(b"limits/")));
}

#[test]
fn only_the_latest_admin_actions_are_kept() {
    let mut s = Script::formed(1, 1);
    s.run(register("a", "ia"));
    s.run(place(1));
    for _ in 0..limits::AUDIT_RECORDS_MAX + 5 {
        s.run(transfer("ann", "why", 1, 1));
    }
    assert_eq!(s.machine.state().audit.len(), limits::AUDIT_RECORDS_MAX);
    assert_eq!(s.machine.state().audit.front().unwrap().index, 9);
    assert_eq!(s.rows.keys().filter(|key| key.starts_with(b"audit/")).count(), limits::AUDIT_RECORDS_MAX);
}

#[test]
fn what_can_not_be_read_is_refused() {
    let mut s = Script::formed(1, 1);
    assert_eq!(
        s.run_bytes(b"\x02\x00"),
        "REFUSED the command can't be read; it is of version 2, and this server knows version 1"
    );
    assert!(s.run_bytes(b"").starts_with("REFUSED the command can't be read"));
}

#[test]
fn rows_of_a_newer_version_are_not_read() {
    let mut s = Script::formed(1, 1);
    s.rows.insert(Bytes::from_static(b"state"), Bytes::from_static(b"\x09abc"));
    let error = CatalogMachine::new().restore(&s.rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stored rows can't be read: the row 'state' is of version 9, and this server knows version 1: start a newer one"
    );
    s.rows.insert(Bytes::from_static(b"state"), Bytes::from_static(b"\x01\xff"));
    assert!(CatalogMachine::new().restore(&s.rows).is_err());
}

#[test]
fn stored_rows_never_change() {
    let mut s = Script::formed(1, 1);
    s.run(Command::RegisterNode(RegisterNode { types: vec![agent_type("a.B", b"d")], ..node("a", "ia") }));
    s.run(place(1));
    s.run(transfer("ann", "why", 1, 1));
    let rows: Vec<String> =
        s.rows.iter().map(|(key, value)| format!("{} = {}", key.escape_ascii(), hex(value))).collect();
    assert_eq!(
        rows,
        [
            "audit/\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x04 = 01040603616e6e03776879277472616e7366657220746865206c656164206f6620726567696f6e203120746f206e6f64652031",
            "state = 01012030313233343536373839616263646566303132333435363738396162636465660101010102010101016102696106613a37303030067a6f6e652d610002020103612e42000101010100ff7f010100",
            "type/a.B = 0103612e42023031016402074465706f736974000101510152085769746864726177000101510152",
        ]
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
