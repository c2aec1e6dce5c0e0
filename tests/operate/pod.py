"""A pod as Prometheus sees one: ends ten tasks a second, of which a share fails, and gives some up at its start.

`python -m tests.operate.pod AGENT TASKS_A_SECOND FAILED_SHARE DEAD_LETTERS`
"""

import asyncio
import sys

from meshwright.core import telemetry
from meshwright.core.settings import Settings


async def main(agent, rate, share, dead):
    telemetry.configure(Settings(metrics_port=0, tracing=False, log_level="info"), "agent", agent)
    telemetry.DEAD_LETTERS.labels(agent).inc(float(dead))
    owed = 0.0
    while True:
        owed += float(rate) * 0.1
        for number in range(int(owed)):
            failed = number < round(int(owed) * float(share))
            words = ("FAILED", "FINISH_REASON_ERROR") if failed else ("COMPLETED", "FINISH_REASON_COMPLETED")
            telemetry.TASKS_ENDED.labels(agent, *words).inc()
        owed -= int(owed)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
