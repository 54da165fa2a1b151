"""What resources of KEDA and of the Prometheus operator may hold, as far as ours use them: written down from
their published references. Unknown names are refused."""

from typing import Any

Schema = dict[str, Any]


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def _resource(spec: Schema) -> Schema:
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata=_object(("name", "namespace"), name=_TEXT, namespace=_TEXT, labels=_TEXTS),
        spec=spec,
    )


def _rules(least_s: int) -> Schema:
    return _object(
        stabilizationWindowSeconds={"type": "integer", "minimum": least_s, "maximum": 3600},
        selectPolicy={"enum": ["Max", "Min", "Disabled"]},
        policies={
            "type": "array",
            "items": _object(
                ("type", "value", "periodSeconds"),
                type={"enum": ["Pods", "Percent"]},
                value={"type": "integer", "minimum": 1},
                periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
            ),
        },
    )


_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "integer", "minimum": 1}
_NUMBER_AS_TEXT: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
_SELECTOR = _object(("matchLabels",), matchLabels=_TEXTS)
_ENDPOINTS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": _object(
        ("port",), port=_TEXT, path=_TEXT, interval={"type": "string", "pattern": r"^\d+(ms|s|m)$"}
    ),
}

# keda.sh/docs/latest/reference/scaledobject-spec and …/scalers/metrics-api
_METRICS_API = _object(
    ("type", "metadata"),
    type={"const": "metrics-api"},
    name=_TEXT,
    # `fallback` needs one of averages.
    metricType={"enum": ["AverageValue", "Value"]},
    # All of a trigger's metadata are texts.
    metadata=_object(
        ("url", "valueLocation", "targetValue"),
        url={"type": "string", "pattern": r"^https?://"},
        format={"enum": ["json", "xml", "yaml", "prometheus"]},
        valueLocation=_TEXT,
        targetValue=_NUMBER_AS_TEXT,
        activationTargetValue=_NUMBER_AS_TEXT,
        unsafeSsl={"enum": ["true", "false"]},
    ),
)

SCHEMAS: dict[tuple[str, str], Schema] = {
    ("keda.sh/v1alpha1", "ScaledObject"): _resource(
        _object(
            ("scaleTargetRef", "triggers"),
            scaleTargetRef=_object(
                ("name",), name=_TEXT, kind=_TEXT, apiVersion=_TEXT, envSourceContainerName=_TEXT
            ),
            minReplicaCount=_COUNT,
            maxReplicaCount=_SECONDS,
            idleReplicaCount=_COUNT,
            pollingInterval=_SECONDS,
            cooldownPeriod=_COUNT,
            initialCooldownPeriod=_COUNT,
            fallback=_object(
                ("failureThreshold", "replicas"), failureThreshold=_SECONDS, replicas=_COUNT, behavior=_TEXT
            ),
            advanced=_object(
                restoreToOriginalReplicaCount={"type": "boolean"},
                horizontalPodAutoscalerConfig=_object(
                    name=_TEXT, behavior=_object(scaleUp=_rules(0), scaleDown=_rules(0))
                ),
            ),
            triggers={"type": "array", "minItems": 1, "items": _METRICS_API},
        )
    ),
    # prometheus-operator.dev/docs/api-reference
    ("monitoring.coreos.com/v1", "PodMonitor"): _resource(
        _object(("selector", "podMetricsEndpoints"), selector=_SELECTOR, podMetricsEndpoints=_ENDPOINTS)
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _resource(
        _object(("selector", "endpoints"), selector=_SELECTOR, endpoints=_ENDPOINTS)
    ),
}
