"""One libtorrent client for the lab. argv[1]: JSON with torrent, dir, seed, tracker.

Prints JSON lines: `ready` before it does anything, `announced` when the tracker has answered,
`result` when every piece is here and right, `error`. Begins when it reads a line, ends when its
standard input does.

The settings are those of a wired LAN, for as much as libtorrent 2.0 can do there: TCP only, no
encryption, many connections made at once, eight upload slots, deep request queues.
"""
import json
import sys
import threading

import libtorrent as lt


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


SETTINGS = {
    "listen_interfaces": "0.0.0.0:6881",
    "enable_dht": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_lsd": True,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # 2: disabled.
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "connections_limit": 500,
    # Connections a second that are tried.
    "connection_speed": 200,
    "unchoke_slots_limit": 8,
    # Seconds; the least that differ from its defaults in the same direction as the LAN does.
    "unchoke_interval": 5,
    "optimistic_unchoke_interval": 10,
    "request_queue_time": 3,
    "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 4000,
    "send_buffer_watermark": 4 << 20,
    "send_buffer_low_watermark": 256 << 10,
    "max_queued_disk_bytes": 32 << 20,
    "aio_threads": 4,
    "hashing_threads": 1,
    # 0: TCP is not slowed for uTP, which there is none of.
    "mixed_mode_algorithm": 0,
    "announce_to_all_trackers": True,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.tracker_notification,
}


def main():
    order = json.loads(sys.argv[1])
    session = lt.session(SETTINGS)
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(order["torrent"])
    params.save_path = order["dir"]
    params.trackers = [order["tracker"]]
    params.max_connections = 60
    params.max_uploads = 8
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if order["seed"]:
        params.flags |= lt.torrent_flags.seed_mode
    say("ready")
    if not sys.stdin.readline():
        return
    session.add_torrent(params)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert) and not order["seed"]:
                say("result")
            elif isinstance(alert, lt.tracker_reply_alert):
                say("announced", peers=alert.num_peers)
            elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.hash_failed_alert)):
                say("error", message=alert.message())


main()
