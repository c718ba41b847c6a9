import pytest

from meshd.policies.mesh_retry.conditions import HTTP_CONDITIONS, METHODS
from tests.policies.support import policy, wrong


def to(**conf):
    return {"to": [{"targetRef": {"kind": "Mesh"}, "default": conf}]}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        to(tcp={"maxConnectAttempt": 1}),
        to(http={"numRetries": 0}),
        to(http={"retryOn": [*HTTP_CONDITIONS, *METHODS, "500", "418", "511"]}),
        to(grpc={"retryOn": ["Canceled", "DeadlineExceeded", "Internal", "ResourceExhausted", "Unavailable"]}),
        to(http={"perTryTimeout": "0s"}),
    ],
)
def test_good_specs(spec):
    assert wrong("MeshRetry", spec) == []


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        (to(), ["default: at least one of 'tcp', 'http', 'grpc' must be set"]),
        (
            to(tcp={}, http={}, grpc={}),
            [
                "default.tcp.maxConnectAttempt: must be set",
                "default.http: must not be empty",
                "default.grpc: must not be empty",
            ],
        ),
        (
            to(tcp={"maxConnectAttempt": 0}),
            ["default.tcp.maxConnectAttempt: must be greater than 0: 1 is the first attempt, without a retry"],
        ),
        (
            to(
                http={
                    "backOff": {},
                    "rateLimitedBackOff": {"maxInterval": "0s"},
                    "retryOn": ["5XX", "600", "Unavailable"],
                    "retriableRequestHeaders": [{"name": "X-Retry"}, {"name": "x", "type": "Present", "value": "y"}],
                }
            ),
            [
                "default.http.backOff: must not be empty",
                "default.http.rateLimitedBackOff.maxInterval: must be longer than 0, not 0s",
                "default.http.rateLimitedBackOff.resetHeaders: must be set",
                *(
                    f'default.http.retryOn[{index}]: "{word}" must be a status code or one of '
                    f"{', '.join((*HTTP_CONDITIONS, *METHODS))}"
                    for index, word in enumerate(("5XX", "600", "Unavailable"))
                ),
                (
                    'default.http.retriableRequestHeaders[0].name: "X-Retry" is no header name: '
                    'use lower case letters, digits and "-", at most 256'
                ),
                'default.http.retriableRequestHeaders[1].value: must not be set with type Present: "y"',
            ],
        ),
        (
            to(
                http={
                    "hostSelection": [
                        {"predicate": "OmitHostsWithTags"},
                        {"predicate": "OmitPreviousPriorities"},
                        {"predicate": "OmitPreviousPriorities", "updateFrequency": 0},
                    ]
                }
            ),
            [
                "default.http.hostSelection[0].tags: must be set with OmitHostsWithTags",
                "default.http.hostSelection[2].predicate: OmitPreviousPriorities must be there only once",
                "default.http.hostSelection[2].updateFrequency: must be greater than 0, not 0",
            ],
        ),
        (
            to(
                grpc={
                    "backOff": {"baseInterval": "-1s"},
                    "rateLimitedBackOff": {"resetHeaders": [{"name": "", "format": "Seconds"}]},
                }
            ),
            [
                "default.grpc.backOff.baseInterval: must be longer than 0, not -1s",
                (
                    'default.grpc.rateLimitedBackOff.resetHeaders[0].name: "" is no header name: '
                    'use lower case letters, digits and "-", at most 256'
                ),
            ],
        ),
        (
            to(grpc={"retryOn": ["Cancelled"]}),
            [
                (
                    'default.grpc.retryOn[0]: must be one of "Canceled", "DeadlineExceeded", "Internal", '
                    '"ResourceExhausted" or "Unavailable", not "Cancelled"'
                )
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert wrong("MeshRetry", spec) == [f"spec.to[0].{violation}" for violation in violations]


def test_what_kuma_stores_without_being_asked_is_written_out():
    http = {"hostSelection": [{"predicate": "OmitPreviousHosts"}], "retriableRequestHeaders": [{"name": "x"}]}
    spec = policy("MeshRetry", "p", to(http=http)).spec
    printed = spec.model_dump(mode="json", exclude_unset=True)["to"][0]["default"]["http"]
    assert printed == {
        "hostSelection": [{"predicate": "OmitPreviousHosts", "updateFrequency": 2}],
        "retriableRequestHeaders": [{"name": "x", "type": "Exact"}],
    }
