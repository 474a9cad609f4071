"""What do the meters and the logs say: fresh CloudWatch datapoints, and the lines of a log stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import AwsError
from .client import Session

PERIOD = 60  # seconds: what services publish at, and the least that is kept for days
LOOK_BACK = 15 * 60  # seconds


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

    def metrics(self, namespace: str, names: list[str], dimensions: dict[str, str], stat: str) -> dict[str, Metric]:
        """The datapoints of the last quarter of an hour, newest first."""
        now = datetime.now(UTC)
        which = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        queries = [
            {
                "Id": f"m{index}",
                "MetricStat": {
                    "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": which},
                    "Period": PERIOD,
                    "Stat": stat,
                },
            }
            for index, name in enumerate(names)
        ]
        results = self._client.pages(
            "get_metric_data",
            "MetricDataResults",
            MetricDataQueries=queries,
            StartTime=now - timedelta(seconds=LOOK_BACK),
            EndTime=now + timedelta(seconds=PERIOD),
            ScanBy="TimestampDescending",
        )
        points: dict[str, list[Datapoint]] = {name: [] for name in names}
        for result in results:
            pairs = zip(result["Timestamps"], result["Values"], strict=True)
            points[names[int(result["Id"][1:])]] += [Datapoint(at.astimezone(UTC), value) for at, value in pairs]
        newest_first = {name: sorted(found, key=lambda p: p.at, reverse=True) for name, found in points.items()}
        return {name: Metric(name, tuple(found)) for name, found in newest_first.items()}


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
