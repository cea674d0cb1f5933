"""What the nodes of a cluster have free, as its head sees them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._control import node_views

HEAD, A, B = "aa", "bb", "cc"
CPU = 10_000
ONE = {"CPU": CPU}


def said(views: node_views.NodeViews, node_id: str, free: int, total: int = 4, **more: Any) -> None:
    facts = {"resources": {"CPU": total * CPU}, "labels": {}}
    views.said(node_id, facts, {"available": {"CPU": free * CPU}, **more})


def free(views: node_views.NodeViews, node_id: str) -> float:
    found = views.for_actors.find(node_id)
    assert found is not None
    return found.available.get("CPU", 0) / CPU


@pytest.fixture
def views() -> node_views.NodeViews:
    made = node_views.NodeViews(HEAD)
    for node_id in (HEAD, A, B):
        said(made, node_id, 4)
        made.reachable(node_id, is_so=True)
    return made


def test_an_actor_takes_its_room_until_its_node_has_spoken_after_it_had_a_worker(views: node_views.NodeViews) -> None:
    views.claim("x", A, ONE)
    said(views, A, 4)  # it has heard of it by now, and looks for a worker
    assert free(views, A) == 3
    views.has_worker("x")
    assert free(views, A) == 3
    said(views, A, 3)
    assert free(views, A) == 3
    views.release("x")
    assert free(views, A) == 3
    views.check()


def test_what_a_node_says_with_its_bundles_counts_as_its_word(views: node_views.NodeViews) -> None:
    views.claim("x", A, ONE)
    views.has_worker("x")
    views.room(A, {"CPU": CPU})
    assert free(views, A) == 1


def test_this_node_is_seen_as_it_is_and_one_that_ends_sooner_takes_nothing(views: node_views.NodeViews) -> None:
    views.claim("x", HEAD, ONE)
    views.claim("y", A, ONE)
    views.claim("z", A, ONE)
    views.has_worker("x")
    views.release("y")
    assert (free(views, HEAD), free(views, A)) == (4, 3)
    views.claim("z", B, ONE)  # it was sent elsewhere
    assert (free(views, A), free(views, B)) == (4, 3)
    views.check()


def test_a_node_that_is_gone_takes_its_claims_along(views: node_views.NodeViews) -> None:
    views.claim("x", A, ONE)
    views.gone(A)
    assert views.for_actors.find(A) is None
    assert views.for_groups(A) is None
    views.has_worker("x")
    views.release("x")
    said(views, A, 4)
    assert free(views, A) == 4
    views.check()


def test_for_groups_a_node_without_a_connection_is_full_and_only_news_is_told(views: node_views.NodeViews) -> None:
    assert {one.node_id: one.is_local for one in views.new_for_groups()} == {HEAD: True, A: False, B: False}
    assert views.new_for_groups() == []
    said(views, A, 4)
    assert views.new_for_groups() == []
    views.claim("x", A, ONE)
    views.reachable(B, is_so=False)
    assert {one.node_id: dict(one.available) for one in views.new_for_groups()} == {A: {"CPU": 3 * CPU}, B: {}}
    assert free(views, B) == 4


def test_a_node_that_is_drained_is_told_apart(views: node_views.NodeViews) -> None:
    said(views, A, 4, draining={"reason": "preemption"})
    assert views.drain_reason(A) == "preemption"
    assert views.drain_reason(B) == ""
    assert views.for_actors.find(A).is_draining  # type: ignore[union-attr]  # it is there
    assert [one.is_draining for one in (views.for_groups(A), views.for_groups(B)) if one is not None] == [True, False]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_claims_and_views_agree(seed: int) -> None:
    chance, views = random.Random(seed), node_views.NodeViews(HEAD)
    for _ in range(300):
        actor, node_id = f"x{chance.randint(0, 9)}", chance.choice((HEAD, A, B))
        chance.choice(
            (
                lambda node_id=node_id: said(views, node_id, chance.randint(0, 4)),
                lambda node_id=node_id: views.room(node_id, {"CPU": CPU * chance.randint(0, 4)}),
                lambda actor=actor, node_id=node_id: views.claim(actor, node_id, ONE),
                lambda actor=actor: views.has_worker(actor),
                lambda actor=actor: views.release(actor),
                lambda node_id=node_id: views.gone(node_id),
                lambda node_id=node_id: views.reachable(node_id, is_so=chance.random() < 0.5),
                lambda: views.new_for_groups(),
            )
        )()
        views.check()
