#!/usr/bin/env python3
"""Asks a node for its parameters as a ROS 2 node with Cyclone's middleware does, prints each answer as a JSON line, and ends.

    cyclone_client.py --domain 42 --service /detector_node/list_parameters --prefixes a b --depth 1 --times 2
"""

import argparse
import json
import time

import cyclone_peer  # sets up the loopback interface before the library is loaded
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

import ros_types as ros

# Any number: it only has to come back.
CLIENT = 0x0123456789ABCDEF


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", type=int, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--prefixes", nargs="*", default=[])
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    participant = DomainParticipant(options.domain)
    qos = Qos(Policy.Reliability.Reliable(duration(seconds=5)), Policy.History.KeepLast(10))
    writer = DataWriter(participant, Topic(participant, f"rq{options.service}Request", ros.ListParametersRequest), qos=qos)
    reader = DataReader(participant, Topic(participant, f"rr{options.service}Reply", ros.ListParametersResponse), qos=qos)
    wait(lambda: writer.get_matched_subscriptions() and reader.get_matched_publications(), "a service")
    for number in range(1, options.times + 1):
        answer = ask(writer, reader, ros.ListParametersRequest(CLIENT, number, options.prefixes, options.depth))
        print(json.dumps({"client": answer.client == CLIENT, "number": answer.number, "names": list(answer.names)}), flush=True)


def ask(writer, reader, question):
    """A reader drops what comes before it knows the writer well, so a client asks again."""
    for _ in range(20):
        writer.write(question)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for answer in reader.take(N=10):
                if getattr(answer, "number", None) == question.number:
                    return answer
            time.sleep(0.005)
    raise SystemExit("no answer")


def wait(condition, what):
    end = time.monotonic() + 20.0
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: none within 20 s")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
