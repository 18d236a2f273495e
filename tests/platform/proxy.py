#!/usr/bin/env python3
"""A network between Kafka's clients and its broker that fails on demand.

    proxy.py --listen PORT --to PORT --control PORT

It forwards whole frames of Kafka's protocol, so that it can lose the answer to one kind of request. Commands are lines
at the control port; each is answered by one line of JSON, the state:

    pass             forward everything, first what was held
    cut              close all connections, and every new one at once
    hold             forward nothing, keep it: a network that is gone; TCP brings what it carried when it is back
    deaf             forward requests, keep answers
    delay MS         every frame arrives so much later
    lose KEY COUNT   the next COUNT answers to requests with this API key never arrive
    snap KEY COUNT   the same, and each time the connection breaks
    shaky N SEED     one in N answers, whichever, never arrives, and its connection breaks
    state            nothing

API keys: 0 Produce, 22 InitProducerId, 24 AddPartitionsToTxn, 25 AddOffsetsToTxn, 26 EndTxn, 28 TxnOffsetCommit.
`dropped` in the state counts the answers that were taken away, by API key.
"""

import argparse
import asyncio
import json
import random
from collections import Counter

HOST = "127.0.0.1"
QUEUED_FRAMES = 1_000


class Network:
    """What the network does now, to all connections."""

    def __init__(self):
        self.connections = set()
        self.requests, self.dropped = Counter(), Counter()
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.heal()

    def heal(self):
        self.cut, self.delay_s, self.losses, self.snaps = False, 0.0, Counter(), Counter()
        self.one_in, self.random = 0, random.Random(0)
        self.up.set()
        self.down.set()

    def order(self, command, *numbers):
        """Each command replaces the one before."""
        numbers = [int(number) for number in numbers]
        if command == "state":
            return
        self.heal()
        match command, numbers:
            case "pass", []:
                pass
            case "cut", []:
                self.cut = True
                for connection in list(self.connections):
                    connection.close()
            case "hold", []:
                self.up.clear()
                self.down.clear()
            case "deaf", []:
                self.down.clear()
            case "delay", [ms]:
                self.delay_s = ms / 1_000
            case "lose", [key, count]:
                self.losses[key] = count
            case "snap", [key, count]:
                self.snaps[key] = count
            case "shaky", [one_in, seed]:
                self.one_in, self.random = one_in, random.Random(seed)
            case _:
                raise ValueError(f"no such command: {command} {numbers}")

    def state(self):
        return {"connections": len(self.connections), "requests": self.requests, "dropped": self.dropped}

    def takes(self, key):
        """Whether an answer is taken away, and whether its connection breaks."""
        for kind, breaks in ((self.losses, False), (self.snaps, True)):
            if kind[key] > 0:
                kind[key] -= 1
                self.dropped[key] += 1
                return True, breaks
        if self.one_in and self.random.randrange(self.one_in) == 0:
            self.dropped[key] += 1
            return True, True
        return False, False


class Broken(Exception):
    """The connection ends here."""


class Connection:
    """One client and the broker; `keys` says what each open request was."""

    def __init__(self, network, client, broker):
        self.network, self.client, self.broker, self.keys = network, client, broker, {}

    async def run(self):
        (from_client, to_client), (from_broker, to_broker) = self.client, self.broker
        up, down = asyncio.Queue(QUEUED_FRAMES), asyncio.Queue(QUEUED_FRAMES)
        flows = [
            self.take(from_client, up),
            self.take(from_broker, down),
            self.bring(up, to_broker, self.request),
            self.bring(down, to_client, self.answer),
        ]
        flows = [asyncio.create_task(flow) for flow in flows]
        self.network.connections.add(self)
        # When one side ends, so does the other.
        await asyncio.wait(flows[2:], return_when=asyncio.FIRST_COMPLETED)
        self.network.connections.discard(self)
        for flow in flows:
            flow.cancel()
        self.close()
        await asyncio.gather(*flows, return_exceptions=True)

    async def take(self, reader, queue):
        """Frames into the queue, with the time at which they are due; None at the end, behind what came before it."""
        try:
            while True:
                size = await reader.readexactly(4)
                frame = size + await reader.readexactly(int.from_bytes(size, "big"))
                await queue.put((now() + self.network.delay_s, frame))
        except (asyncio.IncompleteReadError, OSError):
            await queue.put((now(), None))

    async def bring(self, queue, writer, judge):
        while True:
            due, frame = await queue.get()
            await asyncio.sleep(due - now())
            try:
                if await judge(frame):
                    writer.write(frame)
                    await writer.drain()
            except (Broken, OSError):
                return

    async def request(self, frame):
        await self.network.up.wait()
        if frame is None:
            raise Broken
        key = int.from_bytes(frame[4:6], "big")
        self.keys[frame[8:12]] = key
        self.network.requests[key] += 1
        return True

    async def answer(self, frame):
        await self.network.down.wait()
        if frame is None:
            raise Broken
        taken, breaks = self.network.takes(self.keys.pop(frame[4:8], -1))
        if breaks:
            raise Broken
        return not taken

    def close(self):
        for _, writer in (self.client, self.broker):
            writer.close()


def now():
    return asyncio.get_running_loop().time()


async def serve(listen, to, control):
    network = Network()

    async def client(reader, writer):
        if network.cut:
            return writer.close()
        try:
            broker = await asyncio.open_connection(HOST, to)
        except OSError:
            return writer.close()
        await Connection(network, (reader, writer), broker).run()

    async def orders(reader, writer):
        while line := await reader.readline():
            try:
                network.order(*line.decode().split())
                answer = network.state()
            except (ValueError, TypeError) as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    servers = [await asyncio.start_server(client, HOST, listen), await asyncio.start_server(orders, HOST, control)]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in {"listen": "for clients", "to": "the broker's", "control": "for commands"}.items():
        parser.add_argument(f"--{name}", type=int, required=True, metavar="PORT", help=meaning)
    given = parser.parse_args()
    asyncio.run(serve(given.listen, given.to, given.control))
