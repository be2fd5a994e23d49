"""The state of a run, as checkpoints hold it."""

from fedmpi.server.run_state import loaded_state


def test_entries_of_older_checkpoints_get_their_names_of_today():
    older = {"held": [1, 2], "changed": 3, "sent": "mask", "now": 0.5, "flight": {"least": 4.0, "number": 7}}
    assert loaded_state(older) == {
        "last_round_of": [1, 2], "mask_since": 3, "last_sent_mask": "mask", "now": 0.5,
        "flight": {"earliest_finish": 4.0, "number": 7}}


def test_a_checkpoint_is_not_written_to():
    older = {"sent": "mask", "flight": {"least": 4.0}}
    loaded_state(older)
    assert older == {"sent": "mask", "flight": {"least": 4.0}}
