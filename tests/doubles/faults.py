"""How a vendor misbehaves, on demand.

Owns the queue of faults. Invariant: a fault strikes one request that submits a statement, in the order of arming, after
as many undisturbed ones as were asked for. Absent: chance.

busy, broken       429 with Retry-After, 503; nothing was done
lost_before        the connection ends; nothing was done
lost_after         it was done; the connection ends
broken_after       it was done; 503
malformed          it was done; half a JSON text
pending            the answer is that it is under way, for some looks
expired            401: the token is no longer taken
hold_before/after  never answers; `holding` counts them
"""

import threading


class Faults:
    def __init__(self):
        self.queue, self.lock, self.struck, self.holding = [], threading.Lock(), [], 0

    def arm(self, faults):
        """A list of [undisturbed requests before it, fault]."""
        with self.lock:
            self.queue, self.struck, self.holding = [list(fault) for fault in faults], [], 0

    def next(self):
        with self.lock:
            if not self.queue:
                return None
            if self.queue[0][0] > 0:
                self.queue[0][0] -= 1
                return None
            fault = self.queue.pop(0)[1]
            self.struck.append(fault)
            return fault
