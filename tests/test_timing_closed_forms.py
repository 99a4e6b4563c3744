"""Closed forms of whole systems that the engines must meet: rooflines (T9), pipelined products (T14), meshes (T15), relabelling (T20)."""

import math
from dataclasses import replace

import numpy as np
import pytest

from accelsim.chip import Mesh
from accelsim.timing.bound import bound
from accelsim.timing.des import simulate_events
from accelsim.timing.fpga import FpgaPipeline, fpga_graph, layer_works, simulate_fpga
from accelsim.timing.graph import Edge, Stage, TokenGraph
from accelsim.timing.mesh import Place, transfer
from accelsim.timing.recurrence import recurrence
from validation.pipecnn import network_of

ONE = np.zeros(1, np.int64)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_a_fully_connected_layer_is_on_its_roofline(share: float) -> None:
    """T9: t = max(operations / peak, bytes / rate), at five intensities around the ridge, but for filling and draining."""
    network = network_of("fc", (), ((4096, 4096),))
    pipeline = FpgaPipeline.from_toml("pipecnn_de1")
    (work,) = layer_works(network, pipeline.fpga)
    compute = work.total_cycles * pipeline.fpga.stall / pipeline.fpga.clock_hz
    ridge = work.n_weights / compute  # bytes a second at which both take the same time
    at = replace(pipeline, fpga=replace(pipeline.fpga, ddr_bytes_hz=share * ridge))
    roof = max(compute, work.n_weights / (share * ridge))
    report = simulate_fpga(network, at, engine="recurrence")
    assert roof <= report.latency_s <= 1.01 * roof
    assert bound(fpga_graph(network, at.fpga)).interval_ps * 1e-12 == pytest.approx(roof, rel=0.01)


def two_stages(first: int, second: int, n: int) -> int:
    """Return the makespan of n tokens through two stages with a place between them."""
    count = np.arange(1, n + 1)
    stages = (
        Stage(name="first", layer="x", service_ps=np.full(n, first, np.int64), inputs=(), room=1),
        Stage(name="second", layer="x", service_ps=np.full(n, second, np.int64), inputs=(Edge(source=0, need=count, release=count),)),
    )
    makespan = recurrence(TokenGraph(stages=stages), ONE).makespan_ps
    assert makespan == simulate_events(TokenGraph(stages=stages), ONE).times.makespan_ps
    return makespan


@pytest.mark.parametrize("columns", [1, 8, 64, 128])
@pytest.mark.parametrize(("t_read", "t_adc", "t_add"), [(30, 10, 3), (30, 2, 5), (200, 1, 1), (5, 7, 7)])
def test_products_with_shared_converters_take_the_published_time(columns: int, t_read: int, t_adc: int, t_add: int) -> None:
    """T14, pimsim-nn: front + back + (slices - 1) max(front, back); back = t_adc + t_add + (columns / adcs - 1) max(t_adc, t_add)."""
    turns, slices = math.ceil(columns / 2), 16
    back = two_stages(t_adc, t_add, turns)
    assert back == t_adc + t_add + (turns - 1) * max(t_adc, t_add)
    assert two_stages(t_read, back, slices) == t_read + back + (slices - 1) * max(t_read, back)


MESH = Mesh(flit_bits=32, clock_hz=1e9, hop_cycles=2)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_uniform_traffic_goes_two_thirds_of_a_side(side: int) -> None:
    """T15: mean hops between different tiles of an N x N mesh, 2 N / 3; every route is a shortest one and has its links once."""
    places = [Place(tile=i, n_tiles=side * side) for i in range(side * side)]
    assert {place.row_column for place in places} == {(r, c) for r in range(side) for c in range(side)}
    routes = [(a, b, transfer(MESH, a, b)) for a in places for b in places if a != b]
    for a, b, route in routes:
        (ra, ca), (rb, cb) = a.row_column, b.row_column
        assert len(set(route.links)) == len(route.links) == abs(ra - rb) + abs(ca - cb)
        assert route.fill_ps == len(route.links) * 2000
    assert np.mean([len(route.links) for _, _, route in routes]) == pytest.approx(2 * side / 3)


def everyone_to_everyone(side: int) -> TokenGraph:
    """Return one flit from every tile to every other, each with all links of its way while it passes."""
    places = [Place(tile=i, n_tiles=side * side) for i in range(side * side)]
    one_flit = np.array([1000], np.int64)
    stages = [
        Stage(
            name=f"{a.tile} to {b.tile}", layer="x", service_ps=one_flit, inputs=(), fill_ps=route.fill_ps, holds=route.links,
            hold_ps=one_flit,
        )
        for a in places for b in places if a != b for route in (transfer(MESH, a, b),)
    ]  # fmt: skip
    return TokenGraph(stages=tuple(stages), resources={link: 1 for stage in stages for link in stage.holds})


@pytest.mark.parametrize("side", [2, 4])
def test_a_mesh_saturates_at_its_bisection(side: int) -> None:
    """T15: N^3 / 4 flits over a link of the cut, so at most 4 / N flits a tile and cycle; alone, a flit takes hops t_r + its own time."""
    graph = everyone_to_everyone(side)
    assert bound(graph).interval_ps == side**3 / 4 * 1000
    run = simulate_events(graph, ONE)
    flits_a_cycle = (side**2 - 1) / (run.times.makespan_ps / 1000)
    assert flits_a_cycle <= 4 / side
    alone = TokenGraph(stages=graph.stages[-1:], resources=graph.resources)
    hops = len(graph.stages[-1].holds)
    assert simulate_events(alone, ONE).times.makespan_ps == hops * 2000 + 1000


def test_names_change_nothing() -> None:
    """T20: other names of stages and shared things, the same times."""
    graph = everyone_to_everyone(2)
    renamed = {name: f"way {k}" for k, name in enumerate(graph.resources)}
    stages = tuple(
        replace(stage, name=f"s{k}", layer=f"l{k}", holds=tuple(renamed[name] for name in stage.holds))
        for k, stage in enumerate(graph.stages)
    )
    other = TokenGraph(stages=stages, resources={renamed[name]: n for name, n in graph.resources.items()})
    for a, b in zip(simulate_events(graph, ONE).times.leave, simulate_events(other, ONE).times.leave):
        np.testing.assert_array_equal(a, b)
