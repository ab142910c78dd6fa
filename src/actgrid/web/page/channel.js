export class ChannelView { constructor() {} show() {} }
