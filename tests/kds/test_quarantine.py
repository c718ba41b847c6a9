"""What is held, and when it is let go."""

from meshd.kds.quarantine import Direction, Refusal, after_batch, quarantined
from meshd.model.resource import ResourceKey

A, B = ResourceKey("Mesh", "", "a"), ResourceKey("Mesh", "", "b")
OTHER = ResourceKey("Secret", "m", "s")
UNNAMED = ResourceKey("Mesh", "", "")


def test_a_complete_batch_replaces_what_is_held_of_its_kind() -> None:
    after = after_batch({A: "x", OTHER: "y"}, "Mesh", complete=True, seen=(), refused=[Refusal(B, "z")])
    assert after == {B: "z", OTHER: "y"}


def test_an_increment_lets_go_what_it_names_and_what_had_no_name() -> None:
    after = after_batch({A: "x", B: "y", UNNAMED: "?"}, "Mesh", complete=False, seen=(A,), refused=[])
    assert after == {B: "y"}


def test_it_is_listed_in_order() -> None:
    held = {("z", Direction.RECEIVED): {B: "2", A: "1"}, ("a", Direction.SENT): {OTHER: "3"}}
    assert [(q.zone, q.direction.value, q.kind, q.mesh, q.name, q.reason) for q in quarantined(held)] == [
        ("a", "sent", "Secret", "m", "s", "3"),
        ("z", "received", "Mesh", "", "a", "1"),
        ("z", "received", "Mesh", "", "b", "2"),
    ]
