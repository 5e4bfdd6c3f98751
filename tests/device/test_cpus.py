from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import ARM_STATUS, arm_cpuinfo, build, policy, raspberry_pi_4, rk3588, x86_vm

from liteship_agent.cpus import core_types, format_cpus, online_cpus, parse_cpus, resolve
from liteship_agent.errors import AgentError


@pytest.fixture
def rock(tmp_path):
    return build(tmp_path, rk3588.FILES)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), (" 6 , 0 - 1\n", (0, 1, 6)), ("3-3,1,1-2", (1, 2, 3))],
)
def test_list_of_cpus_is_read_as_the_kernel_writes_it(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize(
    "text", ["", ",", "a", "1-", "-1", "3-1", "1,,2", "0-3 6", "0x1", "4096", "99999", "1.5", "²", "٣"]
)
def test_other_text_is_no_list_of_cpus(text):
    with pytest.raises(AgentError, match=r"0-3,6 is required\. Received"):
        parse_cpus(text)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_formatted_cpus_read_back(cpus):
    assert parse_cpus(format_cpus(tuple(cpus))) == tuple(sorted(cpus))


def test_formatted_cpus_are_short():
    assert format_cpus((7, 4, 5, 6, 0)) == "0,4-7"
    assert format_cpus(()) == ""


def test_core_types_are_ordered_by_capacity_and_ignore_the_bins_of_a_chip(rock):
    types = core_types(rock)

    assert [(kind.name, kind.indices()) for kind in types] == [
        ("Cortex-A76", (4, 5, 6, 7)),
        ("Cortex-A55", (0, 1, 2, 3)),
    ]
    first = types[0].cpus[0]
    assert (first.implementer, first.part, first.capacity, first.max_hz) == (0x41, 0xD0B, 1024, 2_352_000_000)


def test_slower_cluster_of_the_same_design_is_a_type_of_its_own(tmp_path):
    files = {
        "proc/cpuinfo": arm_cpuinfo(["0xd03"] * 8, "fp asimd"),
        **policy(range(0, 4), 1, 1_200_000, "x"),
        **policy(range(4, 8), 1, 1_512_000, "x"),
    }

    types = core_types(build(tmp_path, files))
    assert [kind.describe() for kind in types] == ["4-7 Cortex-A53", "0-3 Cortex-A53 at 1200 MHz"]


def test_tail_of_a_raspberry_pis_cpuinfo_is_no_cpu(tmp_path):
    cpus = online_cpus(build(tmp_path, raspberry_pi_4.FILES))

    assert [(cpu.index, cpu.name) for cpu in cpus] == [(index, "Cortex-A72") for index in range(4)]


def test_unknown_part_is_named_by_its_numbers(tmp_path):
    build(tmp_path, {"proc/cpuinfo": arm_cpuinfo(["0xdff"], "fp")})

    assert online_cpus(tmp_path)[0].name == "ARM core 0x41/0xdff"


def test_cpus_of_a_pc_have_the_model_as_their_type(tmp_path):
    assert core_types(build(tmp_path, x86_vm.FILES))[0].describe() == "0-1 Intel(R) Xeon(R) CPU @ 2.20GHz"


def test_all_cpus_of_the_fastest_type_are_chosen(rock):
    assert resolve((), 4, rock) == (4, 5, 6, 7)


def test_cpus_that_this_process_may_not_use_are_not_chosen(rock):
    build(rock, {"proc/self/status": ARM_STATUS.format("0-4,6")})
    assert resolve((), 2, rock) == (4, 6)

    build(rock, {"proc/self/status": ARM_STATUS.format("1-2")})
    assert resolve((), 2, rock) == (1, 2), "of the other type where no fast one is left"
    with pytest.raises(AgentError, match=r"may be used, 1-2, are required\. Received: 0,3"):
        resolve((3, 0, 1), 1, rock)


def test_given_cpus_are_taken_in_order(rock):
    assert resolve((3, 0, 1), 2, rock) == (0, 1, 3)


def test_cpu_that_does_not_run_is_refused(rock):
    with pytest.raises(AgentError, match=r"0-7, are required\. Received: 8-9"):
        resolve((7, 8, 9), 1, rock)


def test_cpus_of_two_types_are_refused_with_their_names(rock):
    with pytest.raises(AgentError) as caught:
        resolve((3, 4), 1, rock)
    assert "0-3 Cortex-A55, 4-7 Cortex-A76" in str(caught.value)
    assert str(caught.value).endswith("Received: 3-4")


@pytest.mark.parametrize(("cpus", "threads"), [((), 5), ((4, 5), 3), ((0,), 2), ((), 0)])
def test_more_threads_than_cpus_are_refused(rock, cpus, threads):
    with pytest.raises(AgentError, match=rf"threads between 1 and .* \(Cortex-A.*Received: {threads}\."):
        resolve(cpus, threads, rock)


def test_machine_without_cpuinfo_is_refused(tmp_path):
    with pytest.raises(AgentError, match="/proc/cpuinfo"):
        resolve((), 1, tmp_path)


def test_cpus_of_this_machine_may_be_used():
    assert set(resolve((), 1)) <= os.sched_getaffinity(0)
