//! The scenarios: what can differ between the machines of a room, and what must hold then.

use super::figure::Measure::{
    BusiestThread, ClientCpu, ClientFiles, ClientMemory, ClientThreads, GroupMemory, Makespan, Own,
    Rate, Scheduler, SeederCopies, SeederCpu, SeederFiles, SeederMemory, SeederThreads,
    SourceReads, SourceSeeks, StartUp, TargetBusy, TargetReads, TargetSeeks,
};
use super::figure::Who::{All, First, Joined, Ours, Theirs};
use super::figure::{Figure, Measure};
use super::flood::Attack;
use super::options::Options;
use super::plan::{Disk, Event, Flooder, Node, Plan, Start, What};
use super::program::Program;
use lab::Rates;
use lab::disk::{HardDisk, Model};

/// A scenario: cases that run in turn.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// For people.
    pub(super) about: &'static str,
    /// Bytes of the image and of a piece, if the options do not say.
    pub(super) size: u64,
    pub(super) piece_len: u64,
    /// Numbers of clients, if the options do not say. Cases that have a number of their own do
    /// not look at it.
    pub(super) nodes: &'static [usize],
    cases: fn(&Size<'_>) -> Vec<Case>,
}

/// A run of a scenario, and what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Unlike the others of the scenario.
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) figures: Vec<Figure>,
}

/// What the cases are made of.
struct Size<'a> {
    options: &'a Options,
    scenario: &'a Scenario,
    /// Clients.
    nodes: usize,
}

/// All of them, in the order in which they are run.
pub(super) static SCENARIOS: [Scenario; 20] = [
    Scenario { nodes: &[1, 2, 3, 4, 8, 16, 32], ..new("equal", "equal links", equal) },
    new(
        "joins",
        "clients that begin later, in the first 0.3 of the time, or half of them half way",
        joins,
    ),
    new("slow-link", "one client has 0.1 of the link, both ways", slow_link),
    new("slow-disk", "one client's disk has 0.1 of the link's rate", slow_disk),
    new("killed", "one client is killed half way", killed),
    new("frozen", "one client is stopped half way and keeps its connections", frozen),
    new("cable", "one client's cable is pulled at a quarter and put in again half way", cable),
    new("slow-uplink", "one client, or three of eight, send at 0.1 of the rate", slow_uplink),
    new("half-seeder", "the server sends at half the rate", half_seeder),
    new("mixed", "links of many kinds", mixed),
    new("five-torrents", "five torrents are served and deployed together", five_torrents),
    new("stock-seeder", "libtorrent serves, ours deploy; all libtorrent beside it", stock_seeder),
    new(
        "quarter-stock",
        "a quarter of the clients is libtorrent; all libtorrent beside it",
        quarter_stock,
    ),
    Scenario {
        size: 2 << 30,
        piece_len: 16 << 20,
        ..new("no-limit", "no limit, 16 MiB pieces, to 1, 3 and 4; libtorrent beside it", no_limit)
    },
    Scenario {
        size: 1 << 30,
        piece_len: 16 << 20,
        nodes: &[2],
        ..new("memory", "16 MiB pieces to the disk of --disk, also in groups of 256 MiB", memory)
    },
    new("hard-disk", "a hard disk with seeks at the server and at every client", hard_disk),
    new("start", "how long until all receive", start),
    new("source-disk", "the server reads from a hard disk with seeks", source_disk),
    new(
        "slow-change",
        "all clients' links fall to a half, half way: 1.5 of the bound",
        slow_change,
    ),
    Scenario {
        size: 128 << 20,
        piece_len: 512 << 10,
        ..new("flood", "somebody with 0.1 of a link attacks all, in eight ways", flood)
    },
];

const fn new(
    name: &'static str,
    about: &'static str,
    cases: fn(&Size<'_>) -> Vec<Case>,
) -> Scenario {
    Scenario { name, about, size: 256 << 20, piece_len: 1 << 20, nodes: &[8], cases }
}

impl Scenario {
    /// The one of this name.
    pub(super) fn find(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Its cases, those first that others are compared with; beside each case of ours the same with
    /// every other program that the options want.
    pub(super) fn cases(&self, options: &Options) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        let nodes = options.nodes.as_deref().unwrap_or(self.nodes);
        for case in
            nodes.iter().flat_map(|&nodes| (self.cases)(&Size { options, scenario: self, nodes }))
        {
            // A case that does not depend on the number of clients comes once.
            if cases.iter().any(|other| other.name == case.name) {
                continue;
            }
            let twin = |&program: &Program| case.twin(program);
            let twins: Vec<Case> = options.programs.iter().filter_map(twin).collect();
            cases.push(case);
            for twin in twins {
                if cases.iter().all(|other| other.name != twin.name) {
                    cases.push(twin);
                }
            }
        }
        cases
    }
}

impl Case {
    fn new(name: impl Into<String>, plan: Plan, figures: impl Into<Vec<Figure>>) -> Case {
        Case { name: name.into(), plan, figures: figures.into() }
    }

    /// What has nothing but ours, with another program; without bars: they are ours.
    fn twin(&self, program: Program) -> Option<Case> {
        if program == Program::Ours || self.plan.has(Program::Libtorrent) {
            return None;
        }
        let alone = self.figures.iter().filter(|figure| figure.over.is_none());
        let figures: Vec<Figure> = alone.map(|figure| Figure::plain(figure.measure)).collect();
        Some(Case::new(format!("{}, {program}", self.name), self.plan.all(program)?, figures))
    }
}

impl Size<'_> {
    fn plan(&self) -> Plan {
        self.plan_to(self.nodes)
    }

    /// Equal links to so many clients.
    fn plan_to(&self, nodes: usize) -> Plan {
        let shape = self.options.shape_of(self.scenario, nodes);
        Plan::equal(shape, Program::Ours, self.options.target)
    }

    /// This part of a link's rate.
    fn rate(&self, share: f64) -> u64 {
        (self.options.shape_of(self.scenario, self.nodes).rate as f64 * share) as u64
    }

    /// One case whose name is the number of clients.
    fn only(&self, plan: Plan, figures: impl Into<Vec<Figure>>) -> Vec<Case> {
        vec![Case::new(format!("N = {}", self.nodes), plan, figures)]
    }
}

fn copies(most: f64) -> Figure {
    Figure::most(SeederCopies, most)
}

fn equal(size: &Size<'_>) -> Vec<Case> {
    let plan = size.plan();
    let pieces = plan.shape.size.div_ceil(plan.shape.piece_len);
    let most = if size.nodes > 8 && pieces < 1000 { 1.08 } else { 1.05 };
    let sent = if size.nodes >= 4 { copies(1.10) } else { Figure::plain(SeederCopies) };
    let figures = [Figure::most(Makespan(All), most), sent, Figure::plain(StartUp)];
    size.only(plan, figures)
}

fn joins(size: &Size<'_>) -> Vec<Case> {
    let ideal = size.plan().ideal_seconds().unwrap_or_default();
    let later =
        |index: usize| 0.3 * ideal * index as f64 / size.nodes.max(2).saturating_sub(1) as f64;
    let spread = size.plan().each(|index, node| node.start = Start::At(later(index)));
    let half = size.plan().last(size.nodes / 2, |node| node.start = Start::HalfDone);
    // The same links, not those of a room of that size.
    let alone = Plan { clients: size.plan().clients.split_off(size.nodes / 2), ..size.plan() };
    let name = |what: &str| format!("N = {}, {what}", size.nodes);
    let (spread_name, alone_name, half_name) =
        (name("spread over 0.3"), name("without those who join"), name("half join half way"));
    let first = Figure::most(Own(First), 1.05).over(&alone_name);
    vec![
        Case::new(spread_name, spread, [Figure::most(Own(All), 1.10), Figure::plain(SeederCopies)]),
        Case::new(alone_name, alone, [Figure::plain(Own(First)), Figure::plain(SeederCopies)]),
        Case::new(
            half_name,
            half,
            [Figure::most(Own(Joined), 1.10), first, Figure::plain(SeederCopies)],
        ),
    ]
}

/// The last client is changed and does not count; the others do.
fn one_of(size: &Size<'_>, most: f64, sent: Figure, change: impl Fn(&mut Node)) -> Vec<Case> {
    let plan = size.plan().last(1, |node| {
        node.counts = false;
        change(node);
    });
    size.only(plan, [Figure::most(Makespan(All), most), sent])
}

fn slow_link(size: &Size<'_>) -> Vec<Case> {
    let rates = Rates::both(size.rate(0.1));
    one_of(size, 1.08, Figure::plain(SeederCopies), |node| node.rates = rates)
}

fn slow_disk(size: &Size<'_>) -> Vec<Case> {
    let disk = Disk::Slow(Model::Rate { bytes_per_s: size.rate(0.1) });
    one_of(size, 1.08, Figure::plain(SeederCopies), |node| node.disk = disk)
}

fn happens(size: &Size<'_>, events: &[Event]) -> Vec<Case> {
    one_of(size, 1.10, copies(1.15), |node| node.events = events.to_vec())
}

fn killed(size: &Size<'_>) -> Vec<Case> {
    happens(size, &[Event { at: 0.5, what: What::Kill }])
}

fn frozen(size: &Size<'_>) -> Vec<Case> {
    happens(size, &[Event { at: 0.5, what: What::Freeze }])
}

fn cable(size: &Size<'_>) -> Vec<Case> {
    let events = [Event { at: 0.25, what: What::Unplug }, Event { at: 0.5, what: What::Plug }];
    happens(size, &events)
}

/// All clients count, and are compared with the bound of a fluid.
fn fluid(size: &Size<'_>, name: &str, plan: Plan) -> Case {
    let figures = [Figure::most(Makespan(All), 1.10), Figure::plain(SeederCopies)];
    Case::new(format!("N = {}{name}", size.nodes), plan, figures)
}

fn slow_uplink(size: &Size<'_>) -> Vec<Case> {
    let slow = |count| size.plan().last(count, |node| node.rates.up = Some(size.rate(0.1)));
    let several = (size.nodes * 3 / 8).max(2);
    vec![fluid(size, ", one", slow(1)), fluid(size, &format!(", {several}"), slow(several))]
}

fn half_seeder(size: &Size<'_>) -> Vec<Case> {
    let plan = size.plan().server(|node| node.rates.up = Some(size.rate(0.5)));
    vec![fluid(size, "", plan)]
}

/// Up and down, parts of the rate, in turn. With eight clients the sum of the uplinks binds.
const MIXED: [(f64, f64); 4] = [(1.0, 1.0), (0.5, 1.0), (0.5, 0.75), (0.2, 0.75)];

fn mixed(size: &Size<'_>) -> Vec<Case> {
    let plan = size.plan().each(|index, node| {
        let (up, down) = MIXED[index % MIXED.len()];
        node.rates = Rates { up: Some(size.rate(up)), down: Some(size.rate(down)) };
    });
    vec![fluid(size, "", plan)]
}

fn slow_change(size: &Size<'_>) -> Vec<Case> {
    let half = What::Rates(Rates::both(size.rate(0.5)));
    let plan = size.plan().each(|_, node| node.events = vec![Event { at: 0.5, what: half }]);
    size.only(plan, [Figure::plain(Makespan(All)), Figure::plain(SeederCopies)])
}

fn five_torrents(size: &Size<'_>) -> Vec<Case> {
    let mut plan = Plan { images: 5, ..size.plan() };
    // Whole pieces in each.
    let unit = 5 * plan.shape.piece_len;
    plan.shape.size = (plan.shape.size / unit).max(1) * unit;
    size.only(plan, [Figure::most(Makespan(All), 1.08), Figure::plain(SeederCopies)])
}

/// Everybody has libtorrent: what ours beside it are compared with.
fn all_stock(size: &Size<'_>) -> Option<Case> {
    let plan = size.plan().all(Program::Libtorrent)?;
    let figures = [Figure::plain(Makespan(All)), Figure::plain(SeederCopies)];
    Some(Case::new(format!("N = {}, all libtorrent", size.nodes), plan, figures))
}

fn stock_seeder(size: &Size<'_>) -> Vec<Case> {
    let Some(stock) = all_stock(size) else { return Vec::new() };
    let plan = size.plan().server(|node| node.program = Program::Libtorrent);
    let figures = [
        Figure::most(Makespan(All), 1.15),
        Figure::most(Makespan(All), 1.0).over(&stock.name),
        Figure::plain(SeederCopies),
    ];
    let name = format!("N = {}, libtorrent serves", size.nodes);
    vec![stock, Case::new(name, plan, figures)]
}

fn quarter_stock(size: &Size<'_>) -> Vec<Case> {
    let Some(stock) = all_stock(size) else { return Vec::new() };
    let quarter = (size.nodes / 4).max(1);
    let plan = size.plan().last(quarter, |node| node.program = Program::Libtorrent);
    let figures = [
        Figure::most(Makespan(Ours), 1.10),
        Figure::most(Makespan(Theirs), 1.0).over(&stock.name),
        Figure::plain(SeederCopies),
    ];
    let name = format!("N = {}, {quarter} libtorrent", size.nodes);
    let mut stock = stock;
    stock.figures.push(Figure::plain(Makespan(Theirs)));
    vec![stock, Case::new(name, plan, figures)]
}

/// What is told of every run without a limit.
const WITHOUT_LIMIT: [Measure; 5] = [Rate, SeederCpu, ClientCpu, SeederMemory, ClientMemory];

fn no_limit(size: &Size<'_>) -> Vec<Case> {
    let free = |node: &mut Node| node.rates = Rates::default();
    let plan = |nodes| size.plan_to(nodes).server(free).each(|_, node| free(node));
    let mut cases = Vec::new();
    for nodes in [1, 3] {
        let name = format!("1 -> {nodes}, libtorrent");
        let mut figures = WITHOUT_LIMIT.map(Figure::plain).to_vec();
        let beside =
            [Figure::most(ClientCpu, 0.45).over(&name), Figure::most(SeederCpu, 0.2).over(&name)];
        if let Some(plan) = plan(nodes).all(Program::Libtorrent) {
            cases.push(Case::new(name.clone(), plan, figures.clone()));
        }
        figures.extend(beside);
        if nodes == 1 {
            figures.push(Figure::least(Rate, 3.0).over(&name));
        }
        cases.push(Case::new(format!("1 -> {nodes}"), plan(nodes), figures));
    }
    let mut figures = WITHOUT_LIMIT.map(Figure::plain).to_vec();
    figures.extend([Figure::most(BusiestThread, 0.7), Figure::most(Scheduler, 0.1)]);
    cases.push(Case::new("1 -> 4", plan(4), figures));
    cases
}

fn memory(size: &Size<'_>) -> Vec<Case> {
    let plan = || size.plan().each(|_, node| node.disk = Disk::Real);
    let grouped = Plan { memory_max: Some(256 << 20), ..plan() };
    let resident = Figure::most(ClientMemory, 200.0);
    let told = [resident.clone(), Figure::plain(SeederMemory), Figure::plain(Makespan(All))];
    let name = |what: &str| format!("N = {}, {what}", size.nodes);
    vec![
        Case::new(name("no group"), plan(), told),
        // That it completes is the bar; a group cannot have more than its limit.
        Case::new(
            name("groups of 256 MiB"),
            grouped,
            [resident, Figure::most(GroupMemory, 256.0), Figure::plain(Makespan(All))],
        ),
    ]
}

/// A disk of 150 MB/s beside a link of 1 Gbit/s, at the rate of this one. Everything is smaller but
/// time: with pieces in the same proportion, a seek costs as much of a piece's time as there.
fn scaled_disk(size: &Size<'_>) -> Model {
    Model::HardDisk(HardDisk { bytes_per_s: size.rate(1.2), ..HardDisk::default() })
}

fn hard_disk(size: &Size<'_>) -> Vec<Case> {
    let model = scaled_disk(size);
    let mut cases = Vec::new();
    for (what, disk) in [("", Disk::Slow(model)), (", page cache", Disk::Cached(model))] {
        let set = |node: &mut Node| node.disk = disk;
        let plan = size.plan().server(set).each(|_, node| set(node));
        let told = [SourceReads, SourceSeeks, TargetReads, TargetSeeks, TargetBusy, SeederCopies];
        let mut figures = vec![Figure::most(Makespan(All), 1.15)];
        figures.extend(told.map(Figure::plain));
        cases.push(Case::new(format!("N = {}{what}", size.nodes), plan, figures));
    }
    cases
}

fn start(size: &Size<'_>) -> Vec<Case> {
    size.only(size.plan(), [Figure::most(StartUp, 1.0), Figure::plain(Makespan(All))])
}

fn source_disk(size: &Size<'_>) -> Vec<Case> {
    let disk = Disk::Slow(scaled_disk(size));
    let plan = size.plan().server(|node| node.disk = disk);
    let figures = [
        Figure::most(SourceReads, 1.10),
        Figure::plain(SourceSeeks),
        copies(1.10),
        Figure::plain(Makespan(All)),
    ];
    size.only(plan, figures)
}

/// With each attack in turn, beside the quiet run of the round. Memory, threads and files have bars
/// that follow from the program's own limits: 64 connections to peers with two threads each, 256
/// that are in their handshakes, 512 to the pages; and what a quiet run has.
fn flood(size: &Size<'_>) -> Vec<Case> {
    let name = |attack: Attack| format!("N = {}, {attack}", size.nodes);
    let quiet = name(Attack::None);
    let rates = Rates::both(size.rate(0.1));
    let case = |&attack: &Attack| {
        let plan = Plan { flooder: Some(Flooder { attack, rates }), ..size.plan() };
        let mut figures = vec![Figure::plain(Makespan(All))];
        if attack != Attack::None {
            figures.push(Figure::most(Makespan(All), 1.10).over(&quiet));
        }
        figures.extend([
            Figure::most(SeederMemory, 192.0),
            Figure::most(ClientMemory, 256.0),
            Figure::most(SeederThreads, 160.0),
            Figure::most(ClientThreads, 160.0),
            Figure::most(SeederFiles, 900.0),
            Figure::most(ClientFiles, 400.0),
            Figure::plain(SeederCopies),
        ]);
        Case::new(name(attack), plan, figures)
    };
    Attack::ALL.iter().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_compared_with_earlier_ones_of_their_own_scenario() {
        let options = Options::parse(&["--peer", "libtorrent"]).unwrap();
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..index].iter().all(|other| other.name != scenario.name));
            let cases = scenario.cases(&options);
            assert!(!cases.is_empty(), "{} has no case", scenario.name);
            for (number, case) in cases.iter().enumerate() {
                let (name, before) = (&case.name, &cases[..number]);
                assert!(before.iter().all(|other| other.name != *name), "{name} is there twice");
                let over = case.figures.iter().filter_map(|figure| figure.over.as_ref());
                for over in over {
                    let found = before.iter().any(|other| other.name == *over);
                    assert!(found, "{} {name}: {over} does not run before", scenario.name);
                }
            }
        }
    }

    #[test]
    fn bars_are_those_of_our_program_only() {
        let options = Options::parse(&["--nodes", "4", "--peer", "libtorrent"]).unwrap();
        let cases: Vec<Case> = SCENARIOS.iter().flat_map(|s| s.cases(&options)).collect();
        for case in cases.iter().filter(|case| case.plan.programs() == "libtorrent") {
            assert!(case.figures.iter().all(|figure| figure.bar.is_none()), "{}", case.name);
        }
        assert!(cases.iter().any(|case| case.name == "N = 4, libtorrent"));
    }

    #[test]
    fn who_joins_half_way_is_compared_with_the_same_links_without_him() {
        let options = Options::parse(&["--nodes", "16"]).unwrap();
        let cases = Scenario::find("joins").unwrap().cases(&options);
        let [spread, alone, half] = &cases[..] else { panic!("{} cases", cases.len()) };
        assert_eq!((alone.plan.clients.len(), half.plan.clients.len()), (8, 16));
        assert_eq!(alone.plan.clients[0].rates, half.plan.clients[0].rates);
        assert_eq!(half.plan.clients[8].start, Start::HalfDone);
        let last = 0.3 * spread.plan.ideal_seconds().unwrap();
        assert_eq!(spread.plan.clients[15].start, Start::At(last));
    }
}
