"""The demo of Kafka: ``python -m demo.kafka``."""
