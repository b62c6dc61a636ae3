"""Calls every method of ezio.EZIO and ezio.Node with Google's implementation. Arguments: torrent, path, hash."""
import sys
import time

import grpc
import ezio_node_pb2 as node
import ezio_pb2 as pb

torrent_path, path, info_hash = sys.argv[1:]
options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
channel = grpc.insecure_channel("127.0.0.1:50051", options=options)


def call(method, request, answer, service="EZIO"):
    send = channel.unary_unary(
        f"/ezio.{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return send(request, timeout=60)


def status(*hashes):
    return call("GetTorrentStatus", pb.UpdateRequest(hashes=hashes), pb.UpdateStatus)


def refused(code, words, **fields):
    try:
        call("AddTorrent", pb.AddRequest(**fields), pb.AddResponse)
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert words in error.details(), error
        return
    raise AssertionError("it was not refused")


assert call("GetVersion", pb.Empty(), pb.VersionResponse).version
assert len(status().torrents) == 0

refused(grpc.StatusCode.UNAVAILABLE, "failed to decode node", torrent=b"x", save_path=path)
with open(torrent_path, "rb") as file:
    torrent = file.read()
refused(grpc.StatusCode.FAILED_PRECONDITION, "No such file", torrent=torrent, save_path="/dev/none")
# The usual limit of a message is 4 MiB; a torrent may have 256.
refused(grpc.StatusCode.UNAVAILABLE, "failed to decode node", torrent=bytes(20 << 20), save_path=path)

request = pb.AddRequest(
    torrent=torrent, save_path=path, seeding_mode=False, max_uploads=5, max_connections=6,
    sequential_download=True,
)
assert call("AddTorrent", request, pb.AddResponse).result
refused(grpc.StatusCode.ALREADY_EXISTS, "carried already", torrent=torrent, save_path=path)

call("PauseTorrent", pb.PauseTorrentRequest(hash=info_hash), pb.PauseTorrentResponse)
assert status().torrents[info_hash].is_paused
call("ResumeTorrent", pb.ResumeTorrentRequest(hash=info_hash), pb.ResumeTorrentResponse)

watch = channel.unary_stream(
    "/ezio.Node/Watch",
    request_serializer=lambda message: message.SerializeToString(),
    response_deserializer=node.Everything.FromString,
)
seen = []
for everything in watch(node.DetailsRequest(hashes=[info_hash]), timeout=120):
    assert [d.hash for d in everything.details.torrents] == list(everything.status.hashes)
    seen.append(everything.details.torrents[0])
    if everything.status.torrents[info_hash].is_finished:
        break
peers = [peer for detail in seen for peer in detail.peers]
assert any(p.address.startswith("10.") and p.client.startswith("-XG") for p in peers), seen
assert max(p.received for p in peers) > 0 and all(p.sent == 0 for p in peers), peers
answer = status(info_hash)
assert list(answer.hashes) == [info_hash]
t = answer.torrents[info_hash]
assert (t.hash, t.name, t.save_path) == (info_hash, "sda1", path)
assert (t.progress, t.is_finished, t.is_paused, t.state) == (1.0, True, False, 5)
assert t.total == t.total_done > 15_000_000
assert t.num_pieces == -(-t.total // (256 << 10))
assert t.total_payload_download >= t.total and t.total_payload_upload == 0
assert t.last_upload == -1 and 0 <= t.last_download < 120
assert t.active_time >= t.finished_time == t.seeding_time >= 0
assert t.num_peers >= 0 and t.download_rate >= 0 and t.upload_rate == 0
assert len(status("00" * 20).torrents) == 0

try:
    call("NoSuchCall", pb.Empty(), pb.Empty)
    raise AssertionError("it was answered")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
details = call("GetDetails", node.DetailsRequest(), node.Details, "Node").torrents
assert [(d.hash, d.error, d.nowhere) for d in details] == [(info_hash, "", 0)], details
assert not call("Remove", node.RemoveRequest(hash="00" * 20), node.RemoveResponse, "Node").removed
assert call("Remove", node.RemoveRequest(hash=info_hash), node.RemoveResponse, "Node").removed
assert len(status().torrents) == 0
call("Shutdown", pb.Empty(), pb.Empty)
print("all calls answered")
