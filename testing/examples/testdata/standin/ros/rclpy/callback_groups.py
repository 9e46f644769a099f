class ReentrantCallbackGroup:
    pass
