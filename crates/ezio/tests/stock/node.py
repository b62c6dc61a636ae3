"""One libtorrent node for the tests, on loopback only if not told otherwise.

The only argument is a JSON object: `torrent` (a file or a magnet link), `dir` and, if wanted, `trackers`, `peers`,
`settings`, `download_limit`, `upload_limit` (bytes a second), `filtered` (true: the rate limits and
unchoke slots that libtorrent waives for local peers hold for them too), `max_connections`,
`max_uploads`, `everywhere` (true: it has a network of its own, and speaks to all of it).

It prints one JSON object a line: `listening` with the port, `status` a few times a second, and once
`whole` when it has checked or downloaded everything and written it. It ends when its standard input
does, and so when the test does.
"""

import json
import select
import sys
import time

import libtorrent as lt

PERIOD = 0.2

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # Everybody has the same address here.
    "allow_multiple_connections_per_ip": True,
    "announce_to_all_trackers": True,
    "announce_to_all_tiers": True,
    "min_reconnect_time": 1,
    "stop_tracker_timeout": 1,
    "alert_queue_size": 200000,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.tracker_notification
    | lt.alert.category_t.peer_log_notification,
}


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Heard:
    """What was said by peers and to them, from libtorrent's own log."""

    def __init__(self):
        # Messages by direction and name, as {"in REQUEST": 7}.
        self.counts = {}
        # Of each peer's requests: the longest block, and how many waited at once at the most.
        self.block_max = 0
        self.waiting = {}
        self.waiting_max = 0

    def take(self, alert):
        text = alert.message()
        for mark, way in (("<==", "in"), ("==>", "out")):
            if mark in text:
                words = text.split(mark, 1)[1].split()
                if words:
                    self.count(way, words, str(alert.endpoint))

    def count(self, way, words, peer):
        name = f"{way} {words[0]}"
        self.counts[name] = self.counts.get(name, 0) + 1
        if name == "in REQUEST":
            self.block_max = max(self.block_max, int(words[words.index("l:") + 1], 16))
            self.waiting[peer] = self.waiting.get(peer, 0) + 1
            self.waiting_max = max(self.waiting_max, self.waiting[peer])
        elif name in ("out PIECE", "out REJECT_PIECE"):
            self.waiting[peer] = self.waiting.get(peer, 0) - 1


def tell(alert):
    """Logs what tells one run from another: not each block, not each read and write."""
    text = alert.message().split("] ", 2)[-1]
    rare = not any(word in text for word in (" PIECE ", " REQUEST ", " HAVE ", " CORKED_WRITE "))
    if rare and any(mark in text for mark in ("<==", "==>", "DISCONNECT", "CLOSED", "ENCRYPTION")):
        say("log", text=text)


def start(config):
    session = lt.session({**SETTINGS, **config.get("settings", {})})
    others = lt.ip_filter()
    others.add_rule("0.0.0.0", "255.255.255.255", 1)
    others.add_rule("127.0.0.0", "127.255.255.255", 0)
    if not config.get("everywhere"):
        session.set_ip_filter(others)
    if config.get("filtered"):
        everybody = lt.ip_filter()
        everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
        session.set_peer_class_filter(everybody)
    return session


def add(session, config):
    if config["torrent"].startswith("magnet:"):
        params = lt.parse_magnet_uri(config["torrent"])
    else:
        params = lt.add_torrent_params()
        params.ti = lt.torrent_info(config["torrent"])
        params.trackers = []
    params.save_path = config["dir"]
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    params.download_limit = config.get("download_limit", -1)
    params.upload_limit = config.get("upload_limit", -1)
    params.max_connections = config.get("max_connections", -1)
    params.max_uploads = config.get("max_uploads", -1)
    params.flags |= lt.torrent_flags.override_trackers
    params.trackers = params.trackers + config.get("trackers", [])
    handle = session.add_torrent(params)
    for host, port in config.get("peers", []):
        handle.connect_peer((host, port))
    return handle


def status(handle, heard):
    now = handle.status()
    peers = [
        {
            "id": str(peer.pid),
            "client": peer.client.decode("utf-8", "replace"),
            "encrypted": bool(peer.flags & lt.peer_info.rc4_encrypted),
            "dialled": bool(peer.flags & lt.peer_info.local_connection),
            "choked": bool(peer.flags & lt.peer_info.choked),
            # It does not serve us.
            "chokes": bool(peer.flags & lt.peer_info.remote_choked),
        }
        for peer in handle.get_peer_info()
    ]
    say(
        "status",
        state=str(now.state),
        progress=now.progress,
        downloaded=now.total_payload_download,
        uploaded=now.total_payload_upload,
        wasted=now.total_redundant_bytes + now.total_failed_bytes,
        peers=peers,
        counts=heard.counts,
        block_max=heard.block_max,
        waiting_max=heard.waiting_max,
    )


def listen(session):
    while not session.listen_port():
        time.sleep(0.01)
    say("listening", port=session.listen_port())


def main():
    config = json.loads(sys.argv[1])
    session = start(config)
    listen(session)
    handle, heard = add(session, config), Heard()
    whole, due = False, 0
    while True:
        if select.select([sys.stdin], [], [], 0.05)[0]:
            return
        for alert in session.pop_alerts():
            if isinstance(alert, lt.peer_log_alert):
                heard.take(alert)
                tell(alert)
            elif isinstance(alert, lt.cache_flushed_alert) and whole:
                say("whole")
            elif isinstance(alert, (lt.tracker_error_alert, lt.file_error_alert)):
                say("trouble", text=alert.message())
        if not whole and handle.status().is_seeding:
            whole = True
            handle.flush_cache()
        if time.monotonic() >= due:
            due = time.monotonic() + PERIOD
            status(handle, heard)


main()
