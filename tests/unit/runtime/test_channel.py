"""The service config: what is retried and what is not."""

from services.runtime.channel import service_config


def test_without_idempotent_methods_nothing_is_retried() -> None:
    config = service_config()
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert "methodConfig" not in config


def test_idempotent_methods_are_retried_on_unavailable_only() -> None:
    config = service_config(["ragmesh.infer.v1.InferService/ListModels", "/a.B/C"])
    (method,) = config["methodConfig"]
    assert method["name"] == [
        {"service": "ragmesh.infer.v1.InferService", "method": "ListModels"},
        {"service": "a.B", "method": "C"},
    ]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert config["retryThrottling"]["maxTokens"] > 0
