"""The metrics of the two processes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["KueueMetrics", "WebhookMetrics"]

SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class WebhookMetrics:
    """What the webhook counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reviews = Counter(
            "memplan_webhook_reviews_total",
            "Reviews answered, by outcome (planned, unplanned, ignored, rejected, invalid, late, "
            "failed).",
            ["outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "memplan_webhook_review_duration_seconds",
            "Time from a review to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.renewals = Counter(
            "memplan_webhook_certificate_renewals_total",
            "Certificates read anew.",
            registry=self.registry,
        )

    def reviewed(self, outcome: str, seconds: float) -> None:
        """Count a review."""
        self._reviews.labels(outcome).inc()
        self._seconds.observe(seconds)


class KueueMetrics:
    """What the controller of the admission check counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.checks = Counter(
            "memplan_kueue_checks_total",
            "Workloads checked, by state (ready, rejected, retry).",
            ["state"],
            registry=self.registry,
        )
