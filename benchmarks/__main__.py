"""quick"""
import asyncio, sys
from benchmarks import durable
from benchmarks.parts import Stage
from benchmarks.rounds import Effort

async def main():
    async with Stage() as stage:
        mesh = await stage.mesh("main")
        agent = await stage.agent("agent", mesh)
        for f in await durable.run(stage, Effort(scale=int(sys.argv[1])), mesh, agent):
            print(f.name, f.what, f.median, min(f.ratios), max(f.ratios), f.ours, f.theirs, f.beside)
asyncio.run(main())
