package io.accrue.peer;

/** The topics that the stage writes. */
enum Output {
    STATE("contract.state"),
    RECOGNITION("recognition.schedule"),
    BILLING("billing.schedule"),
    JOURNAL("journal.entries");

    private final String name;

    Output(String name) {
        this.name = name;
    }

    String topic(String prefix) {
        return prefix + "." + name;
    }
}
