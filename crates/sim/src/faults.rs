//! What goes wrong in a run.

use crate::config::How;
use crate::world::{What, World};
use swarm::time::Time;

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for stop in self.config.faults.stops.clone() {
            self.plan(stop.at, What::Stop(stop.node, stop.how));
        }
        self.plan_next(self.config.faults.reset_every_ns, What::ResetOne);
        self.plan_next(self.config.faults.stall_every_ns, What::StallOne);
    }

    /// Whether a machine crashed for good, or will.
    pub(crate) fn stays_away(&self, node: usize) -> bool {
        let stops = &self.config.faults.stops;
        stops.iter().any(|stop| stop.node == node && stop.how == How::Crash)
            || self.config.faults.liars.contains(&node)
    }

    pub(crate) fn stop(&mut self, node: usize, how: How) {
        match how {
            How::Freeze(span_ns) => {
                self.nodes[node].frozen_until = Time(self.now.0 + span_ns);
                self.plan_in(span_ns, What::Thaw(node));
            }
            How::Crash => self.switch_off(node),
            How::Restart(span_ns) => {
                self.switch_off(node);
                self.plan_in(span_ns, What::Join(node));
            }
        }
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        self.tell(node, swarm::swarm::Event::Tick);
        self.take_next(node);
        self.send_next(node);
    }

    fn switch_off(&mut self, node: usize) {
        let node_conns = |conn: &usize| self.conns[*conn].nodes.contains(&node);
        let conns: Vec<usize> = (0..self.conns.len()).filter(node_conns).collect();
        conns.into_iter().for_each(|conn| self.hang_up(conn, Some(node)));
        let machine = &mut self.nodes[node];
        machine.swarm = None;
        machine.life += 1;
        machine.port.clear();
        machine.disk.lose_memory();
        self.report.finished[node] = None;
    }

    pub(crate) fn reset_one(&mut self) {
        if let Some(conn) = self.some_conn() {
            self.hang_up(conn, None);
        }
        self.plan_next(self.config.faults.reset_every_ns, What::ResetOne);
    }

    pub(crate) fn stall_one(&mut self) {
        if let Some(conn) = self.some_conn() {
            let until = Time(self.now.0 + self.config.faults.stall_ns);
            self.conns[conn].stalled_until = until;
            self.plan(until, What::Unstall(conn));
        }
        self.plan_next(self.config.faults.stall_every_ns, What::StallOne);
    }

    fn some_conn(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.conns.len()).filter(|&conn| self.conns[conn].up).collect();
        let chosen = self.random.below(up.len() as u64) as usize;
        up.get(chosen).copied()
    }

    /// Plans a fault after half to one and a half of its average distance.
    fn plan_next(&mut self, every_ns: u64, what: What) {
        if every_ns > 0 {
            let span = every_ns / 2 + self.random.below(every_ns);
            self.plan_in(span, what);
        }
    }
}
