"""Births and beats, put together from what the core knows. Pure."""

from __future__ import annotations

import math

from fleet_sim.agent.config import AgentConfig
from fleet_sim.agent.events import Vitals
from fleet_sim.agent.queue import ReportQueue
from fleetui.common.link.messages import Beat, Birth, Running


def birth(config: AgentConfig, models: list[Running], queue: ReportQueue, boot: str, seq: int, at: float) -> Birth:
    return Birth(
        device=config.device,
        boot=boot,
        seq=seq,
        at=at,
        agent=config.agent,
        target=config.target,
        site=config.site,
        firmware=config.firmware,
        name=config.name,
        cores=config.cores,
        memory_bytes=config.memory_bytes,
        disk_bytes=config.disk_bytes,
        tags=dict(config.tags),
        models=models,
        queued=len(queue),
        merged=queue.merged,
        dropped=queue.dropped,
    )


def beat(
    config: AgentConfig,
    models: list[Running],
    queue: ReportQueue,
    boot: str,
    seq: int,
    at: float,
    *,
    vitals: Vitals,
    uptime_s: float,
    rows: int,
    errors: int,
    last_error: str,
) -> Beat:
    return Beat(
        device=config.device,
        boot=boot,
        seq=seq,
        at=at,
        uptime_s=max(0.0, vitals.uptime_s if math.isfinite(vitals.uptime_s) else uptime_s),
        cpu=vitals.cpu,
        memory=vitals.memory,
        disk=vitals.disk,
        temperature=vitals.temperature,
        clock_offset_s=vitals.clock_offset_s,
        rows=rows,
        errors=errors,
        last_error=last_error,
        models=models,
        queued=len(queue),
        dropped=queue.dropped,
    )
