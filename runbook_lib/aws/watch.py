"""What do the meters and the logs say: fresh CloudWatch datapoints, and the lines of a log stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import AwsError
from .client import Session

PERIOD = 60  # seconds: what services publish at, and the least that is kept for days
FRESH = 5 * 60  # seconds: a service may be some minutes late, and an older value says nothing about now


@dataclass(frozen=True)
class Datapoint:
    """One value of a metric; `at` is the beginning of its minute, in UTC."""

    at: datetime
    value: float


@dataclass(frozen=True)
class Metric:
    """The fresh datapoints of a metric, newest first; none: nothing was published, which is not zero."""

    name: str
    points: tuple[Datapoint, ...]

    @property
    def newest(self) -> float | None:
        """The last value."""
        return self.points[0].value if self.points else None


class CloudWatch:
    """CloudWatch metrics in one region, held open."""

    def __init__(self, session: Session, region: str) -> None:
        self._client = session.client("cloudwatch", region)

    def dimensions(self, namespace: str, metric: str, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, str] | None:
        """The dimensions under which a metric is really published: each name with one of the wanted values."""
        listed = self._client.pages("list_metrics", "Metrics", Namespace=namespace, MetricName=metric)
        for item in listed:
            found = {dimension["Name"]: dimension["Value"] for dimension in item["Dimensions"]}
            if found.keys() == wanted.keys() and all(found[name] in values for name, values in wanted.items()):
                return found
        return None

    def fresh(
        self, namespace: str, names: Sequence[str], dimensions: dict[str, str], since: datetime | None = None
    ) -> dict[str, Metric]:
        """The highest value of each of the last five minutes, newest first; none from before the minute of `since`."""
        now = datetime.now(UTC)
        oldest = now - timedelta(seconds=FRESH)
        if since is not None:
            oldest = max(oldest, since.replace(second=0, microsecond=0))
        which = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        queries = [
            {
                "Id": f"m{index}",
                "MetricStat": {
                    "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": which},
                    "Period": PERIOD,
                    "Stat": "Maximum",
                },
            }
            for index, name in enumerate(names)
        ]
        results = self._client.pages(
            "get_metric_data",
            "MetricDataResults",
            MetricDataQueries=queries,
            StartTime=oldest,
            EndTime=now + timedelta(seconds=PERIOD),
            ScanBy="TimestampDescending",
        )
        points: dict[str, list[Datapoint]] = {name: [] for name in names}
        for result in results:
            pairs = zip(result["Timestamps"], result["Values"], strict=True)
            found = [Datapoint(at.astimezone(UTC), value) for at, value in pairs]
            points[names[int(result["Id"][1:])]] += [point for point in found if point.at >= oldest.replace(second=0)]
        return {
            name: Metric(name, tuple(sorted(p, key=lambda point: point.at, reverse=True))) for name, p in points.items()
        }


@dataclass(frozen=True)
class LogLine:
    """One line of a log; `at` in UTC."""

    at: datetime
    text: str


class Logs:
    """CloudWatch Logs in one region, held open."""

    def __init__(self, session: Session, region: str) -> None:
        self._client = session.client("logs", region)

    def lines(self, group: str, stream_prefix: str, since: datetime | None) -> Iterator[LogLine]:
        """The lines of the streams with a prefix, since a time; nothing when the group is not there."""
        start: dict[str, Any] = {"startTime": int(since.timestamp() * 1000)} if since else {}
        events = self._client.pages(
            "filter_log_events", "events", logGroupName=group, logStreamNamePrefix=stream_prefix, **start
        )
        try:
            for event in events:
                yield LogLine(datetime.fromtimestamp(event["timestamp"] / 1000, UTC), event["message"])
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise
