"""The task of lm-evaluation-harness over a local file of ARC-easy, the same for every model that it is asked of."""

NAME = "arc_easy_local"


def arc_task(data):
    """Rows {query, choices, gold} as multiple choice, without examples."""
    return {
        "task": NAME,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_target": "{{gold}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
