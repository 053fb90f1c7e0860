//! A network of one bridge, with a namespace for each server, inside the run's own network namespace. The
//! clients call from there.
//!
//! Who shall not reach whom is told a wrong hardware address of it: frames leave and nobody takes them, as
//! if a cable were cut, in one direction. That needs nothing but `ip`.

use crate::rights::{find, run};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const NAMESPACES: &str = "/run/netns";
const BRIDGE: &str = "grid0";
const PORT: u16 = 7400;
const NOBODY: &str = "02:77:00:00:ff:ff";
/// How much later netem lets frames leave, and how much that varies.
const DELAY: [&str; 2] = ["60ms", "40ms"];

pub struct Network {
    ip: PathBuf,
    nsenter: PathBuf,
    /// Server and number in the network.
    numbers: BTreeMap<String, u8>,
    /// An iptables that knows the statistic match.
    iptables: Option<PathBuf>,
    /// A tc whose kernel has netem.
    tc: Option<PathBuf>,
}

fn address(number: u8) -> String {
    format!("10.77.0.{number}")
}

fn hardware(number: u8) -> String {
    format!("02:77:00:00:00:{number:02x}")
}

impl Network {
    pub fn build(servers: &[String]) -> anyhow::Result<Self> {
        let ip = find("ip").context("there is no program 'ip'")?;
        let nsenter = find("nsenter").context("there is no program 'nsenter'")?;
        let numbers: BTreeMap<String, u8> = servers.iter().cloned().zip(1..).collect();
        let mut network = Self { ip, nsenter, numbers, iptables: None, tc: None };
        // The names of namespaces are mounts; here nobody else's are touched.
        std::fs::create_dir_all(NAMESPACES)?;
        let mount = find("mount").context("there is no program 'mount'")?;
        run(Command::new(mount).args(["-t", "tmpfs", "none", NAMESPACES]))?;
        network.ip("link set lo up")?;
        network.ip(&format!("link add {BRIDGE} type bridge"))?;
        network.ip(&format!("addr add {}/24 dev {BRIDGE}", address(254)))?;
        network.ip(&format!("link set {BRIDGE} up"))?;
        for (server, number) in &network.numbers {
            network.ip(&format!("netns add {server}"))?;
            let (port, hardware) = (format!("port{number}"), hardware(*number));
            network
                .ip(&format!("link add {port} type veth peer name eth0 netns {server} address {hardware}"))?;
            network.ip(&format!("link set {port} master {BRIDGE} up"))?;
            network.ip(&format!("-n {server} addr add {}/24 dev eth0", address(*number)))?;
            network.ip(&format!("-n {server} link set eth0 up"))?;
            network.ip(&format!("-n {server} link set lo up"))?;
        }
        network.iptables = network.find_iptables();
        network.tc = network.find_netem();
        Ok(network)
    }

    pub fn listen(&self, server: &str) -> anyhow::Result<String> {
        Ok(format!("{}:{PORT}", address(self.number(server)?)))
    }

    /// What a program has to be started through to be at a server's place.
    pub fn enter(&self, server: &str) -> Vec<OsString> {
        let namespace = Path::new(NAMESPACES).join(server);
        let mut net = OsString::from("--net=");
        net.push(namespace);
        vec![self.nsenter.clone().into(), net]
    }

    pub fn has_loss(&self) -> bool {
        self.iptables.is_some()
    }

    pub fn has_delay(&self) -> bool {
        self.tc.is_some()
    }

    /// From now on nothing of what `from` sends reaches `to`.
    pub fn cut(&self, from: &str, to: &[String]) -> anyhow::Result<()> {
        self.tell_hardware(from, to, |_| NOBODY.to_owned())
    }

    /// Everybody reaches everybody.
    pub fn heal(&self) -> anyhow::Result<()> {
        let all: Vec<String> = self.numbers.keys().cloned().collect();
        all.iter().try_for_each(|from| self.tell_hardware(from, &all, hardware))
    }

    /// So many percent of what reaches a server get lost.
    pub fn lose(&self, server: &str, percent: u8) -> anyhow::Result<()> {
        let probability = format!("0.{percent:02}");
        let rule = ["-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", &probability];
        self.iptables(server, &[&rule[..], &["-j", "DROP"]].concat())
    }

    pub fn lose_nothing(&self, server: &str) -> anyhow::Result<()> {
        self.iptables(server, &["-F", "INPUT"])
    }

    /// What a server sends takes longer.
    pub fn delay(&self, server: &str) -> anyhow::Result<()> {
        let tc = self.tc.as_ref().context("no netem")?;
        let rule = ["qdisc", "add", "dev", "eth0", "root", "netem", "delay"];
        run(Command::new(tc).args(["-n", server]).args(rule).args(DELAY))
    }

    pub fn delay_nothing(&self, server: &str) -> anyhow::Result<()> {
        let tc = self.tc.as_ref().context("no netem")?;
        run(Command::new(tc).args(["-n", server, "qdisc", "del", "dev", "eth0", "root"]))
    }

    fn tell_hardware(&self, at: &str, of: &[String], hardware: impl Fn(u8) -> String) -> anyhow::Result<()> {
        let mut lines = String::new();
        for server in of.iter().filter(|server| *server != at) {
            let number = self.number(server)?;
            let (address, hardware) = (address(number), hardware(number));
            lines += &format!("neigh replace {address} lladdr {hardware} dev eth0 nud permanent\n");
        }
        self.ip_lines(at, &lines)
    }

    fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        run(Command::new(&self.ip).args(arguments.split(' ')))
    }

    /// Many commands in one run of the program.
    fn ip_lines(&self, server: &str, lines: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.ip);
        let mut child = command.args(["-n", server, "-batch", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(lines.as_bytes())?;
        let status = child.wait()?;
        anyhow::ensure!(status.success(), "ip -n {server} -batch -: {status}: {lines}");
        Ok(())
    }

    fn iptables(&self, server: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let program = self.iptables.as_ref().context("no iptables")?;
        let enter = self.enter(server);
        run(Command::new(&enter[0]).args(&enter[1..]).arg(program).arg("-w").args(arguments))
    }

    fn find_iptables(&mut self) -> Option<PathBuf> {
        let server = self.numbers.keys().next()?.clone();
        ["iptables", "iptables-legacy"].iter().filter_map(|name| find(name)).find(|program| {
            self.iptables = Some(program.clone());
            self.lose(&server, 1).is_ok() && self.lose_nothing(&server).is_ok()
        })
    }

    fn find_netem(&mut self) -> Option<PathBuf> {
        let server = self.numbers.keys().next()?.clone();
        self.tc = find("tc");
        let works = self.delay(&server).is_ok() && self.delay_nothing(&server).is_ok();
        self.tc.take().filter(|_| works)
    }

    fn number(&self, server: &str) -> anyhow::Result<u8> {
        self.numbers.get(server).copied().with_context(|| format!("{server} has no place in the network"))
    }
}
