from meshd.model.steps import Steps, finished


def test_work_runs_to_its_end():
    done = []

    def work() -> Steps[int]:
        for i in range(3):
            done.append(i)
            yield
        return sum(done)

    assert finished(work()) == 3
    assert done == [0, 1, 2]
