"""What a node counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ashat.protocol.messages import NodeState


class Metrics:
    """The counters of one node, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter("ashat_node_received_bytes", "Bytes of request bodies.", registry=self.registry)
        self.sent = Counter("ashat_node_sent_bytes", "Bytes of response bodies.", registry=self.registry)
        self.requests = Counter(
            "ashat_node_requests", "Requests answered.", ["method", "status"], registry=self.registry
        )
        self.operations = Counter(
            "ashat_node_operations", "Changes of what runs that ended.", ["action", "result"], registry=self.registry
        )
        self._restarts = Gauge(
            "ashat_node_app_restarts", "Crashes of the running release since it was started.", registry=self.registry
        )
        self._healthy = Gauge("ashat_node_app_healthy", "1 while the program is well.", registry=self.registry)
        self._leased = Gauge("ashat_node_lease_held", "1 while an update has the server.", registry=self.registry)
        self._operating = Gauge(
            "ashat_node_operation_running", "1 while a change is under way.", registry=self.registry
        )
        self._objects = Gauge("ashat_node_store_objects", "Objects in the store.", registry=self.registry)
        self._bytes = Gauge("ashat_node_store_bytes", "Bytes in the store.", registry=self.registry)
        self._free = Gauge("ashat_node_store_free_bytes", "Bytes free on the store's disk.", registry=self.registry)
        self._current = Gauge(
            "ashat_node_current_info",
            "1 for what runs now.",
            ["role", "name", "bundle", "update_id", "attempt", "release_seq"],
            registry=self.registry,
        )

    def render(self, state: NodeState) -> bytes:
        """Write the figures as Prometheus text, with the gauges taken from `state`."""
        self._restarts.set(state.app.restarts)
        self._healthy.set(state.app.healthy)
        self._leased.set(state.lease is not None)
        self._operating.set(state.operation is not None and state.operation.status == "running")
        self._objects.set(state.store.objects)
        self._bytes.set(state.store.bytes)
        self._free.set(state.store.free_bytes)
        self._current.clear()
        if state.current:
            current = state.current
            labels = (current.bundle, current.update_id, current.attempt, current.release_seq or "")
            self._current.labels(state.role, state.name, *labels).set(1)
        return generate_latest(self.registry)
