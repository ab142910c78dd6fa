export class HeatmapView { constructor() {} show() {} }
