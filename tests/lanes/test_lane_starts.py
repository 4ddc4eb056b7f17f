from orchestrator.lanes.lane_starts import LaneStarts


def test_lane_start_pauses_grow_until_the_lane_is_given_up() -> None:
    starts, now, pauses = LaneStarts(limit=4, first_pause_s=2.0), 0.0, []
    for _ in range(4):
        assert starts.given_up() == {}
        starts.fail(3, "no room", now)
        pauses.append(starts.pause(3, now))
        now += pauses[-1]
        assert starts.pause(3, now) == 0.0
    assert pauses == [2.0, 4.0, 8.0, 16.0]
    assert starts.given_up() == {3: "lane 3 could not start, tried 4 times: no room"}
    assert starts.pause(0, now) == 0.0, "other lanes start as they like"


def test_lane_start_counts_the_workers_of_a_lane_once() -> None:
    starts = LaneStarts(limit=2, first_pause_s=2.0)
    starts.fail(0, "no room", 10.0)
    starts.fail(0, "no room either", 11.0)
    assert starts.given_up() == {}
    starts.fail(0, "no room", 12.0)
    assert list(starts.given_up()) == [0]


def test_lane_start_counts_failures_in_a_row() -> None:
    starts = LaneStarts(limit=2, first_pause_s=2.0)
    starts.fail(0, "the storage is away", 0.0)
    starts.succeed(0)
    assert starts.pause(0, 0.0) == 0.0
    starts.fail(0, "the storage is away", 50.0)
    assert starts.given_up() == {}
