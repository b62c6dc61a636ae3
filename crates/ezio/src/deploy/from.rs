//! What to deploy, and to where: the FROM and the `--to` of the command line.

use super::Deploy;
use crate::control;
use crate::inspect::{self, hex};
use crate::magnet;
use crate::node::name_of;
use crate::ui::Ui;
use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::bencode::Limits;
use swarm::magnet::Magnet;
use swarm::metainfo::Metainfo;

/// A torrent, and where its image shall go.
pub(super) struct Order {
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) trackers: Vec<Vec<String>>,
    /// Where peers are known to listen.
    pub(super) peers: Vec<SocketAddr>,
    pub(super) to: PathBuf,
}

/// What FROM leads to, and with `--to` what to do.
pub(super) struct Orders {
    pub(super) orders: Vec<Order>,
    /// `http://SERVER:6969`, if it came from one of ours.
    pub(super) server: Option<String>,
}

/// Fetches the torrents that are wanted.
///
/// # Errors
/// If there is no such torrent, or it is not clear which one is meant.
pub(super) fn find(deploy: &Deploy, ui: Ui, stop: &AtomicBool) -> anyhow::Result<Orders> {
    let (from, to) = (&deploy.from[..], &deploy.to[..]);
    let found = if Magnet::is_meant(from) {
        Orders { orders: vec![from_magnet(deploy, ui, stop)?], server: None }
    } else if !from.starts_with("http://") {
        ensure!(
            !from.starts_with("https://"),
            "{from}: only http is spoken; fetch the torrent yourself"
        );
        Orders { orders: vec![from_file(Path::new(from), to)?], server: None }
    } else {
        let (server, path) = split_url(from);
        if path.is_empty() {
            from_server(server, to, stop)?
        } else {
            from_url(server, &path, to, stop)?
        }
    };
    for (index, order) in found.orders.iter().enumerate() {
        let before = &found.orders[..index];
        ensure!(
            before.iter().all(|other| other.to != order.to),
            "{} is given for two torrents",
            order.to.display()
        );
        ensure!(
            before.iter().all(|other| other.metainfo.info_hash() != order.metainfo.info_hash()),
            "{} is to go to two targets; run one ezio deploy for each",
            name_of(&order.metainfo)
        );
    }
    Ok(found)
}

fn from_file(path: &Path, to: &[String]) -> anyhow::Result<Order> {
    let metainfo = inspect::load(path).map_err(|error| {
        let text = path.to_string_lossy();
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match port.filter(|_| !text.contains('/')) {
            Some(_) => anyhow!("{error:#}; if that is a server, write http://{text}"),
            None => anyhow!("{error:#}; FROM is a torrent, its URL, or http://SERVER:6969"),
        }
    })?;
    let metainfo = Arc::new(metainfo);
    let trackers = metainfo.trackers().to_vec();
    let to = only_target(to, &name_of(&metainfo))?;
    Ok(Order { metainfo, trackers, peers: Vec::new(), to })
}

/// Asks peers for the torrent itself.
fn from_magnet(deploy: &Deploy, ui: Ui, stop: &AtomicBool) -> anyhow::Result<Order> {
    let magnet = magnet::parse(&deploy.from)?;
    let (name, hash) = (magnet.name.as_deref().unwrap_or("the torrent"), hex(&magnet.info_hash));
    ensure!(
        deploy.info_hashes.is_empty() || deploy.info_hashes.contains(&magnet.info_hash),
        "the link is of the info-hash {hash}, which is none of those asked for"
    );
    ui.note(&format!("asking peers for {name} ({hash})"));
    let stopped = || stop.load(Ordering::Relaxed);
    let found = magnet::fetch(&magnet, &deploy.node, &stopped, &|text| ui.note(text))?;
    let metainfo = Arc::new(found.metainfo);
    let to = only_target(&deploy.to, &name_of(&metainfo))?;
    Ok(Order { trackers: metainfo.trackers().to_vec(), metainfo, peers: found.peers, to })
}

fn from_url(
    server: String,
    path: &str,
    to: &[String],
    stop: &AtomicBool,
) -> anyhow::Result<Orders> {
    let (metainfo, mut trackers) = fetch(&server, path, stop)?;
    // Whoever hands out the torrent is its tracker.
    let served = path.starts_with("/torrents/");
    if served {
        trackers.insert(0, vec![format!("{server}/announce")]);
    }
    let to = only_target(to, &name_of(&metainfo))?;
    let orders = vec![Order { metainfo, trackers, peers: Vec::new(), to }];
    Ok(Orders { orders, server: served.then_some(server) })
}

fn from_server(server: String, to: &[String], stop: &AtomicBool) -> anyhow::Result<Orders> {
    let served = torrents(&server, stop)?;
    ensure!(!served.is_empty(), "{server} serves no torrent");
    let order = |path: &str, to: PathBuf| -> anyhow::Result<Order> {
        let (metainfo, mut trackers) = fetch(&server, path, stop)?;
        trackers.insert(0, vec![format!("{server}/announce")]);
        Ok(Order { metainfo, trackers, peers: Vec::new(), to })
    };
    if let [(name, path)] = &served[..] {
        let orders = vec![order(path, only_target(to, name)?)?];
        return Ok(Orders { orders, server: Some(server) });
    }
    let names = || served.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let mut orders = Vec::new();
    for target in to {
        let named = target.split_once('=').and_then(|(name, to)| {
            let (_, path) = served.iter().find(|(served, _)| served == name)?;
            Some((path, to))
        });
        let Some((path, to)) = named else {
            bail!(
                "{server} serves several torrents ({}); say which goes where, as --to {}=DEVICE",
                names(),
                served[0].0
            );
        };
        orders.push(order(path, to.into())?);
    }
    Ok(Orders { orders, server: Some(server) })
}

/// All torrents that `http://SERVER:6969` serves.
///
/// # Errors
/// If it does not answer, or is none of ours.
pub(crate) fn served(server: &str, stop: &AtomicBool) -> anyhow::Result<Vec<Arc<Metainfo>>> {
    anyhow::ensure!(
        server.starts_with("http://"),
        "`{server}` is no server; give its URL, as http://192.168.1.1:6969"
    );
    let (server, _) = split_url(server);
    let paths = torrents(&server, stop)?;
    paths.iter().map(|(_, path)| Ok(fetch(&server, path, stop)?.0)).collect()
}

fn fetch(
    server: &str,
    path: &str,
    stop: &AtomicBool,
) -> anyhow::Result<(Arc<Metainfo>, Vec<Vec<String>>)> {
    let url = format!("{server}{path}");
    let bytes = control::fetch_until(&url, Limits::TORRENT.bytes, stop)?;
    let metainfo =
        Metainfo::parse(bytes).with_context(|| format!("{url} is no torrent that EZIO can use"))?;
    let trackers = metainfo.trackers().to_vec();
    Ok((Arc::new(metainfo), trackers))
}

/// Names and paths of all torrents of a server.
fn torrents(server: &str, stop: &AtomicBool) -> anyhow::Result<Vec<(String, String)>> {
    let url = format!("{server}/torrents");
    let bytes = control::fetch_until(&url, 1 << 20, stop)?;
    let list: Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("{url} gave no list of torrents; is that an ezio serve?"))?;
    let torrents = list.as_array().map_or(&[][..], Vec::as_slice);
    let text = |torrent: &Value, key| Some(torrent.get(key)?.as_str()?.to_owned());
    Ok(torrents.iter().filter_map(|t| Some((text(t, "name")?, text(t, "path")?))).collect())
}

/// The path of the only `--to`, which may name the torrent.
fn only_target(to: &[String], name: &str) -> anyhow::Result<PathBuf> {
    let [to] = to else {
        bail!("there is one torrent, {name}, but {} times --to; give one", to.len());
    };
    let path = to.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).unwrap_or(to);
    Ok(path.into())
}

/// `http://SERVER:6969` and the path behind it, which is empty for `/` too.
fn split_url(url: &str) -> (String, String) {
    let host = url.find("://").map_or(0, |at| at + 3);
    match url[host..].find('/') {
        Some(at) if url[host + at..] != *"/" => {
            (url[..host + at].to_owned(), url[host + at..].to_owned())
        }
        _ => (url.trim_end_matches('/').to_owned(), String::new()),
    }
}

impl Orders {
    /// Refuses torrents of other info-hashes than `allowed`, if there are any.
    ///
    /// # Errors
    /// Names the torrent and both hashes.
    pub(super) fn check_hashes(&self, allowed: &[[u8; 20]], from: &str) -> anyhow::Result<()> {
        for order in &self.orders {
            let found = order.metainfo.info_hash();
            let wanted = allowed.iter().map(hex).collect::<Vec<_>>().join(" or ");
            ensure!(
                allowed.is_empty() || allowed.contains(&found),
                "{} of {from} has the info-hash {}, not the {wanted} asked for; nothing was written",
                name_of(&order.metainfo),
                hex(&found)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_server_and_path() {
        let check = |url, server: &str, path: &str| {
            assert_eq!(split_url(url), (server.to_owned(), path.to_owned()));
        };
        check("http://10.0.0.1:6969", "http://10.0.0.1:6969", "");
        check("http://10.0.0.1:6969/", "http://10.0.0.1:6969", "");
        check("http://a/torrents/x.torrent", "http://a", "/torrents/x.torrent");
        check("http://[::1]:6969/x", "http://[::1]:6969", "/x");
    }

    #[test]
    fn a_target_may_name_the_torrent() {
        let check = |to: &str| only_target(&[to.to_owned()], "sda1").unwrap();
        assert_eq!(check("/dev/sdb1"), Path::new("/dev/sdb1"));
        assert_eq!(check("sda1=/dev/sdb1"), Path::new("/dev/sdb1"));
        assert_eq!(check("sda2=x"), Path::new("sda2=x"), "a file may be called so");
        assert!(only_target(&[], "sda1").is_err());
    }
}
