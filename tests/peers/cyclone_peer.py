#!/usr/bin/env python3
"""A foreign ROS 2 peer: Cyclone DDS (PyPI `cyclonedds`) speaking ROS's topic and type names and CDR, on the loopback interface.

It publishes PointCloud2 and subscribes to Detection3DArray, to PointCloud2 or to the ROS graph, either alone or both:

    cyclone_peer.py --domain 42 --publish rt/points --bytes 5760000 --count 600 --rate 10 \
                    --subscribe rt/objects --type Detection3DArray

Protocol: it prints a JSON line when each side has a match; publishes once a line comes on stdin; prints a line for the first
message in frame "warm-up" (these are not counted), for each message of the graph, and when `--expect` messages have arrived
(or not within 20 s); and when stdin ends, one with what it sent and received and the latencies from the stamp in the header
to arrival. `--now` does without stdin and ends `--linger` seconds after the last message was sent.
"""

import argparse
import json
import os
import select
import signal
import sys
import time

PEERS = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces><AllowMulticast>false</AllowMulticast>
</General><Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer Address="127.0.0.1"/></Peers></Discovery>
<Internal><SocketReceiveBufferSize max="8MB"/></Internal></Domain></CycloneDDS>"""
os.environ.setdefault("CYCLONEDDS_URI", PEERS)

# After the environment, which the library reads when it is loaded.
from cyclonedds.core import DDSException, Policy, Qos, ReadCondition, SampleState, InstanceState, ViewState, WaitSet  # noqa: E402
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.pub import DataWriter  # noqa: E402
from cyclonedds.sub import DataReader  # noqa: E402
from cyclonedds.topic import Topic  # noqa: E402
from cyclonedds.util import duration  # noqa: E402

import ros_types as ros  # noqa: E402

POINT_STEP = 32


def main():
    options = parse_arguments()
    if not options.now:
        # Whoever waits for a line learns that none comes, instead of waiting for ever.
        signal.alarm(120)
    participant = DomainParticipant(options.domain)
    reader = Receiver(participant, options) if options.subscribe else None
    writer = Sender(participant, options) if options.publish else None
    sides = [side for side in (reader, writer) if side]
    while not all(side.matched() for side in sides):
        time.sleep(0.005)
    say(event="matched", endpoints=writer.matched_endpoints() if writer else [])

    go = options.now or not writer or bool(sys.stdin.readline())
    began = last_sent = time.monotonic()
    expecting = options.expect
    while True:
        if writer and go and not writer.done():
            writer.send_when_due()
            last_sent = time.monotonic()
        if reader:
            reader.take(wait=0.005)
        else:
            time.sleep(0.002)
        if expecting and (len(reader.samples) >= expecting or time.monotonic() - began > 20.0):
            expecting = 0
            say(event="expected")
        if options.now:
            if (not writer or writer.done()) and time.monotonic() - last_sent > options.linger:
                break
        elif (not writer or writer.done()) and stdin_ended():
            break
    if reader:
        # What came between the last look and the end of stdin.
        reader.take(wait=0.0)
    say(
        event="summary",
        sent=writer.count if writer else 0,
        received=len(reader.samples) if reader else 0,
        refused=reader.refused if reader else 0,
        latency_ms=percentiles([sample.pop("latency_ms") for sample in reader.samples]) if reader else {},
        samples=reader.samples if reader and not options.now else [],
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", type=int, required=True)
    parser.add_argument("--publish", metavar="TOPIC", help="DDS topic of clouds to publish, e.g. rt/points")
    parser.add_argument("--bytes", type=int, nargs="+", default=[5_760_000], help="lengths of the clouds' data, in turn")
    parser.add_argument("--count", type=int, default=10, help="clouds to publish")
    parser.add_argument("--rate", type=float, default=10.0, help="clouds per second")
    parser.add_argument("--depth", type=int, default=0, help="clouds kept for repairs; 0 keeps each until acknowledged")
    parser.add_argument("--subscribe", metavar="TOPIC", help="DDS topic to subscribe to, e.g. rt/objects")
    parser.add_argument("--type", default="Detection3DArray", choices=["Detection3DArray", "PointCloud2", "ParticipantEntitiesInfo"])
    parser.add_argument("--expect", type=int, default=0, metavar="COUNT", help="say when so many messages have arrived")
    parser.add_argument("--reliability", default="reliable", choices=["reliable", "best_effort"])
    parser.add_argument("--reader-reliability", choices=["reliable", "best_effort"], help="of what is subscribed to, if another")
    parser.add_argument("--now", action="store_true", help="publish at once, do not listen to stdin")
    parser.add_argument("--linger", type=float, default=3.0, help="with --now: seconds to go on receiving after the last cloud")
    return parser.parse_args()


def qos(choice, *more):
    if choice == "reliable":
        reliability = Policy.Reliability.Reliable(duration(seconds=20))
    else:
        reliability = Policy.Reliability.BestEffort
    return Qos(reliability, *more)


def pattern(number, length):
    """Bytes that both ends can compute: (31 i + number) mod 256."""
    period = bytes((31 * i + number) % 256 for i in range(256))
    return (period * (length // 256 + 1))[:length]


class Sender:
    def __init__(self, participant, options):
        topic = Topic(participant, options.publish, ros.PointCloud2)
        history = Policy.History.KeepLast(options.depth) if options.depth else Policy.History.KeepAll
        self.writer = DataWriter(participant, topic, qos=qos(options.reliability, history))
        self.options = options
        self.count = 0
        self.due = None

    def matched(self):
        return bool(self.writer.get_matched_subscriptions())

    def matched_endpoints(self):
        handles = self.writer.get_matched_subscriptions()
        return [self.writer.get_matched_subscription_data(handle).key.bytes.hex() for handle in handles]

    def done(self):
        return self.count >= self.options.count

    def send_when_due(self):
        now = time.monotonic()
        self.due = self.due or now
        if now < self.due:
            return
        self.due += 1.0 / self.options.rate
        lengths = self.options.bytes
        data = pattern(self.count, lengths[self.count % len(lengths)])
        width = len(data) // POINT_STEP
        fields = [ros.PointField(name, 4 * at, 7, 1) for at, name in enumerate(["x", "y", "z", "intensity"])]
        nanos = time.time_ns()
        header = ros.Header(ros.Time(nanos // 10**9, nanos % 10**9), f"cloud {self.count}")
        self.writer.write(ros.PointCloud2(header, 1, width, fields, False, POINT_STEP, len(data), data, True))
        self.count += 1


class Receiver:
    def __init__(self, participant, options):
        self.kind = getattr(ros, options.type)
        topic = Topic(participant, options.subscribe, self.kind)
        graph = self.kind is ros.ParticipantEntitiesInfo
        durability = Policy.Durability.TransientLocal if graph else Policy.Durability.Volatile
        self.reader = DataReader(participant, topic, qos=qos(options.reader_reliability or options.reliability, Policy.History.KeepAll, durability))
        state = SampleState.NotRead | ViewState.Any | InstanceState.Any
        self.waitset = WaitSet(participant)
        self.waitset.attach(ReadCondition(self.reader, state))
        self.samples = []
        self.refused = 0
        self.warm = False

    def matched(self):
        return bool(self.reader.get_matched_publications())

    def take(self, wait):
        self.waitset.wait(duration(seconds=wait))
        try:
            taken = self.reader.take(N=100)
        except (DDSException, ValueError, KeyError, IndexError):
            self.refused += 1
            return
        now = time.time_ns()
        for sample in taken:
            if isinstance(sample, ros.ParticipantEntitiesInfo):
                say(event="graph", **describe_graph(sample))
            elif isinstance(sample, self.kind) and sample.header.frame_id == "warm-up":
                if not self.warm:
                    say(event="warm")
                self.warm = True
            elif isinstance(sample, self.kind):
                self.samples.append(describe(sample, now))


def describe_graph(sample):
    nodes = [
        {
            "name": node.node_namespace.rstrip("/") + "/" + node.node_name,
            "readers": [bytes(gid).hex() for gid in node.reader_gid_seq],
            "writers": [bytes(gid).hex() for gid in node.writer_gid_seq],
        }
        for node in sample.node_entities_info_seq
    ]
    return {"participant": bytes(sample.gid).hex(), "nodes": nodes}


def describe(sample, now):
    """What the other end may want to compare."""
    stamp = sample.header.stamp
    about = {"frame": sample.header.frame_id, "latency_ms": (now - stamp.sec * 10**9 - stamp.nanosec) / 1e6}
    if isinstance(sample, ros.PointCloud2):
        number = int(sample.header.frame_id.split()[-1])
        return {**about, "bytes": len(sample.data), "intact": bytes(sample.data) == pattern(number, len(sample.data))}
    return {**about, "detections": len(sample.detections), "ids": [detection.id for detection in sample.detections]}


def percentiles(values):
    values = sorted(values)
    if not values:
        return {}
    pick = lambda share: round(values[min(len(values) - 1, int(share * len(values)))], 2)
    return {"p50": pick(0.5), "p95": pick(0.95), "max": round(values[-1], 2)}


def stdin_ended():
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and sys.stdin.readline() == ""


def say(**fields):
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
