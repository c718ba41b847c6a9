import pytest

from tests.policies.shaped import clusters, inbounds, outbounds, server
from tests.policies.support import policy

OFF = {
    "enforcingConsecutive5xx": 0,
    "enforcingConsecutiveGatewayFailure": 0,
    "enforcingConsecutiveLocalOriginFailure": 0,
    "enforcingSuccessRate": 0,
    "enforcingLocalOriginSuccessRate": 0,
    "enforcingFailurePercentage": 0,
    "enforcingFailurePercentageLocalOrigin": 0,
}


AT_ONCE = {"updateMergeWindow": "0s"}
"""Workers hear of an ejection when it happens, whoever decides on it."""


def breaker(conf, name="p", **top):
    spec = {"to": [{"targetRef": {"kind": "Mesh"}, "default": conf}], **top}
    return policy("MeshCircuitBreaker", name, spec)


def cluster(*policies):
    return clusters(outbounds(server(), *policies))["backend"]


def outliers(**more):
    return {"outlierDetection": {"detectors": {"totalFailures": {"consecutive": 3}}, **more}}


def test_limits():
    limits = {
        "maxConnections": 1,
        "maxConnectionPools": 2,
        "maxPendingRequests": 3,
        "maxRetries": 4,
        "maxRequests": 5,
    }
    found = cluster(breaker({"connectionLimits": limits}))
    assert found["circuitBreakers"] == {"thresholds": [{**limits, "trackRemaining": True}]}


def test_without_a_policy_endpoints_out_of_reach_are_still_left_out():
    found = cluster()
    assert found["circuitBreakers"] == {"thresholds": [{"trackRemaining": True}]}
    assert found["outlierDetection"]["consecutiveLocalOriginFailure"] == 3
    assert found["commonLbConfig"]["healthyPanicThreshold"] == {"value": 1.0}


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        (
            {
                "interval": "1s",
                "baseEjectionTime": "2s",
                "maxEjectionPercent": 33,
                "splitExternalAndLocalErrors": True,
                "detectors": {
                    "totalFailures": {"consecutive": 3},
                    "gatewayFailures": {"consecutive": 4},
                    "localOriginFailures": {"consecutive": 5},
                    "successRate": {"minimumHosts": 6, "requestVolume": 7, "standardDeviationFactor": "1.9"},
                    "failurePercentage": {"minimumHosts": 8, "requestVolume": 9, "threshold": 10},
                },
            },
            {
                "interval": "1s",
                "baseEjectionTime": "2s",
                "maxEjectionPercent": 33,
                "splitExternalLocalOriginErrors": True,
                "consecutive5xx": 3,
                "enforcingConsecutive5xx": 100,
                "consecutiveGatewayFailure": 4,
                "enforcingConsecutiveGatewayFailure": 100,
                "consecutiveLocalOriginFailure": 5,
                "enforcingConsecutiveLocalOriginFailure": 100,
                "enforcingSuccessRate": 100,
                "enforcingLocalOriginSuccessRate": 100,
                "successRateMinimumHosts": 6,
                "successRateRequestVolume": 7,
                "successRateStdevFactor": 1900,
                "enforcingFailurePercentage": 100,
                "enforcingFailurePercentageLocalOrigin": 100,
                "failurePercentageMinimumHosts": 8,
                "failurePercentageRequestVolume": 9,
                "failurePercentageThreshold": 10,
            },
        ),
        (
            {"detectors": {"totalFailures": {}, "gatewayFailures": {}, "localOriginFailures": {}}},
            OFF,
        ),
        (
            {"detectors": {"successRate": {}, "failurePercentage": {}}},
            {
                **OFF,
                "enforcingSuccessRate": 100,
                "enforcingLocalOriginSuccessRate": 100,
                "enforcingFailurePercentage": 100,
                "enforcingFailurePercentageLocalOrigin": 100,
            },
        ),
    ],
)
def test_detection_of_outliers(detection, expected):
    found = cluster(breaker({"outlierDetection": detection}))
    assert found["outlierDetection"] == expected
    assert found["commonLbConfig"] == AT_ONCE


def test_panic():
    found = cluster(breaker(outliers(healthyPanicThreshold="12.5")))
    assert found["commonLbConfig"] == {**AT_ONCE, "healthyPanicThreshold": {"value": 12.5}}
    assert cluster()["commonLbConfig"] == {**AT_ONCE, "healthyPanicThreshold": {"value": 1.0}}


def test_detection_can_be_switched_off():
    off = breaker(outliers(disabled=True), "a")
    found = cluster(breaker(outliers(), "b"), off)
    assert "outlierDetection" not in found
    assert found["commonLbConfig"] == AT_ONCE


def test_policies_are_merged():
    found = cluster(
        breaker({"connectionLimits": {"maxRetries": 1, "maxRequests": 1}}, "b"),
        breaker({"connectionLimits": {"maxRetries": 2}}, "a"),
    )
    assert found["circuitBreakers"]["thresholds"] == [{"maxRetries": 2, "maxRequests": 1, "trackRemaining": True}]


@pytest.mark.parametrize("section", [{"rules": [{}]}, {"from": [{"targetRef": {"kind": "Mesh"}}]}])
def test_inbounds(section):
    ((name, [entry]),) = section.items()
    conf = {"connectionLimits": {"maxConnections": 9}, **outliers()}
    made = policy("MeshCircuitBreaker", "p", {name: [{**entry, "default": conf}]})
    found = clusters(inbounds(made, dataplane=server()))["localhost:8080"]
    assert found["circuitBreakers"] == {"thresholds": [{"maxConnections": 9, "trackRemaining": True}]}
    assert found["outlierDetection"]["consecutive5xx"] == 3


def test_an_inbound_is_not_what_a_client_is():
    found = clusters(inbounds(breaker({"connectionLimits": {"maxConnections": 9}}), dataplane=server()))
    assert found["localhost:8080"]["circuitBreakers"] == {"thresholds": [{"trackRemaining": True}]}
